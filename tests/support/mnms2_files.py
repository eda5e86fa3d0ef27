"""Patients as M&Ms-2's files."""

from pathlib import Path

from support.mnms_files import ED, ES, made, write


def mnms2(root: Path, diseases: dict[str, str], *, squeeze: float = 0.7, cine: bool = True) -> Path:
    for number, code in enumerate(diseases):
        frames, labels = made(number, squeeze)
        parts = {
            f"{phase}{end}": array[t]
            for phase, t in (("ED", ED), ("ES", ES))
            for end, array in (("", frames), ("_gt", labels))
        }
        for part, array in (parts | ({"CINE": frames} if cine else {})).items():
            write(root / "dataset" / code / f"{code}_SA_{part}.nii.gz", array)
    lines = [f"{int(code)},{disease},SIEMENS,Aera,1.5" for code, disease in diseases.items()]
    (root / "dataset_information.csv").write_text(
        "\n".join(["SUBJECT_CODE,DISEASE,VENDOR,SCANNER,FIELD", *lines, ",,,,", ",,,,", ""])
    )
    return root
