import gzip
import os
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.volumes import Volume, _spacing, _time_axis, nifti, open_volume, read_volume

UPRIGHT = np.diag([-1.5, -1.5, -10, 1.0])  # columns to the patient's left, rows to the back
BOTH = pytest.mark.parametrize("name", ["SYN0001.nii.gz", "SYN0001.nii"])
# bytes of a version 1 header: (offset, format)
DIM, PIXDIM, VOX_OFFSET, SCALE, CODES, SROW = (
    (40, "<8h"),
    (76, "<8f"),
    (108, "<f"),
    (112, "<2f"),
    (252, "<2h"),
    (280, "<12f"),
)


def save(
    path: Path, array: np.ndarray, *, zooms=(1.5, 1.5, 10, 0.03), affine=UPRIGHT, code: int = 1
) -> Path:
    """`array` (X, Y, Z[, T]) as a file whose header gives both `affine` (sform) and `zooms`,
    whatever they are."""
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    patch(path, PIXDIM, 1, *zooms, *[0] * (7 - len(zooms)))
    patch(path, CODES, 0, code)
    return patch(path, SROW, *affine[:3].ravel())


def patch(path: Path, field: tuple[int, str], *values: float) -> Path:
    """The same file with other bytes in its header; gzipped or not."""
    raw = path.read_bytes()
    packed = raw[:2] == b"\x1f\x8b"
    content = bytearray(gzip.decompress(raw) if packed else raw)
    struct.pack_into(field[1], content, field[0], *values)
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
    return path


def noise(*shape: int, dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@BOTH
def test_volumes_are_read_backwards(tmp_path, name):
    array = noise(6, 5, 4, 3)
    volume, spacing = read_volume(
        save(tmp_path / name, array, zooms=(1.2, 1.4, 10, 0.03), affine=np.eye(4))
    )
    assert volume.shape == (3, 4, 5, 6) and volume[2, 3, 4, 5] == array[5, 4, 3, 2]
    np.testing.assert_array_equal(volume, array.T)
    assert spacing == pytest.approx((1.4, 1.2))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<f8", "u1", ">u4"])
@BOTH
def test_every_version_byte_order_and_type_is_read(tmp_path, kind, dtype, name):
    array = noise(6, 5, 4, 3).astype(dtype)
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    nibabel.save(kind(array, UPRIGHT, header), tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path / name)[0], array.T)


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_no_numbers_are_a_reason(tmp_path, dtype):
    with pytest.raises(ValueError, match="not a volume"):
        open_volume(save(tmp_path / "a.nii", np.zeros((6, 5, 4), dtype)))


@settings(max_examples=25, deadline=None)
@given(
    scale=st.sampled_from([0.0, np.nan, np.inf, 1.0, 2.5, -0.125]),
    inter=st.sampled_from([0.0, -3.5, 100.0]),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32]),
    packed=st.booleans(),
)
def test_values_are_scaled_as_nibabel_scales(tmp_path_factory, scale, inter, dtype, packed):
    path = tmp_path_factory.mktemp("scaled") / ("a.nii.gz" if packed else "a.nii")
    patch(save(path, noise(6, 5, 4, dtype=dtype)), SCALE, scale, inter)
    np.testing.assert_allclose(read_volume(path)[0], nibabel.load(path).get_fdata().T, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(wanted=st.sets(st.integers(0, 6)), packed=st.booleans())
def test_frames_are_taken_by_their_number(tmp_path_factory, wanted, packed):
    path = tmp_path_factory.mktemp("cine") / ("a.nii.gz" if packed else "a.nii")
    array = noise(6, 5, 4, 7)
    taken = open_volume(save(path, array)).take([*wanted, *wanted])
    assert set(taken) == wanted
    for t, frame in taken.items():
        np.testing.assert_array_equal(frame, array[..., t].T)


def test_taken_frames_are_copies_and_streamed_ones_share_a_buffer(tmp_path):
    volume = open_volume(save(tmp_path / "a.nii.gz", noise(6, 5, 4, 3)))
    taken = volume.take(range(3))
    assert not np.shares_memory(taken[0], taken[1])
    first, *_, last = volume.stream()
    assert np.shares_memory(first, last)


@BOTH
def test_nothing_behind_the_last_wanted_frame_is_read(tmp_path, name):
    array = noise(40, 40, 10, 12)
    whole = save(tmp_path / name, array).read_bytes()
    volume = open_volume(tmp_path / name)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(volume.take([4])[4], array[..., 4].T)
    with pytest.raises(ValueError, match="truncated"):
        volume.take([4, 11])


@pytest.mark.parametrize("keep", [0, 1, 100, 300, 0.5, 0.999])
@BOTH
def test_case_14_a_cut_file_is_a_reason_without_its_path(tmp_path, keep, name):
    whole = save(tmp_path / name, noise(20, 20, 5)).read_bytes()
    (tmp_path / name).write_bytes(
        whole[: keep if isinstance(keep, int) else int(keep * len(whole))]
    )
    with pytest.raises(ValueError, match=r"file is (empty|truncated or corrupt)") as error:
        read_volume(tmp_path / name)
    assert "SYN" not in str(error.value)


def test_case_14_a_flipped_bit_is_noticed_where_the_file_is_read_to_its_end(tmp_path):
    """nibabel alone does not reach the checksum at the end of a gzip stream."""
    path = save(tmp_path / "a.nii.gz", np.zeros((60, 60, 9, 2), np.int16))
    stored = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    stored[30_000] ^= 64
    path.write_bytes(stored)
    volume = open_volume(path)
    for read in (
        lambda: read_volume(path),
        lambda: list(volume.stream()),
        lambda: volume.take([1]),
    ):
        with pytest.raises(ValueError, match="corrupt"):
            read()


@pytest.mark.parametrize(
    "content",
    [b"no nifti at all", gzip.compress(b"nor here" * 100, mtime=0), b"\x1f\x8b" + b"\0" * 500],
)
def test_another_file_is_a_reason(tmp_path, content):
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="corrupt"):
        read_volume(tmp_path / "a.nii.gz")


def test_what_is_no_file_is_a_reason_without_its_path(tmp_path):
    os.mkfifo(tmp_path / "SYN0002.nii")  # nobody writes to it: reading would wait for ever
    (tmp_path / "SYN0003.nii").symlink_to(tmp_path / "nowhere")
    for path, reason in (
        (tmp_path / "SYN0001.nii", "file is missing"),
        (tmp_path, "file cannot be read"),
        (tmp_path / "SYN0002.nii", "file cannot be read"),
        (tmp_path / "SYN0003.nii", "file is missing"),
    ):
        with pytest.raises(ValueError, match=f"^{reason}[^/]*$"):
            open_volume(path)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 3, 2)])
def test_a_shape_that_is_no_volume_is_a_reason(tmp_path, shape):
    with pytest.raises(ValueError, match=f"not a volume: shape {' x '.join(map(str, shape))}"):
        read_volume(save(tmp_path / "a.nii", np.zeros(shape, np.float32)))


def test_a_file_cannot_promise_more_than_it_can_hold(tmp_path):
    """Memory for a header's wildest claim is never asked for."""
    for name in ("a.nii", "a.nii.gz"):
        path = patch(save(tmp_path / name, noise(6, 5, 4)), DIM, 3, 32000, 32000, 30000, 1, 1, 1, 1)
        with pytest.raises(ValueError, match="promises more"):
            open_volume(path)


@pytest.mark.parametrize("offset", [np.nan, np.inf, -400.0, 1e30, 8.0])
def test_an_impossible_place_of_the_voxels_is_a_reason(tmp_path, offset):
    with pytest.raises(ValueError, match="corrupt"):
        open_volume(patch(save(tmp_path / "a.nii", noise(6, 5, 4)), VOX_OFFSET, offset))


@pytest.mark.parametrize("examples", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_case_14_31_whatever_is_broken_ends_in_a_reason_without_a_path(tmp_path, examples, recwarn):
    rng = np.random.default_rng(examples)
    plain = save(tmp_path / "a.nii", noise(30, 28, 3, 4)).read_bytes()
    packed, refused = gzip.compress(plain, 1), 0
    for number in range(examples):
        content = bytearray(packed if number % 2 else plain)
        header = rng.random() < 0.7
        for at in rng.integers(0, 352 if header else len(content), rng.integers(1, 6)):
            content[at] = rng.integers(256)
        whole = rng.random() < 0.8
        path = tmp_path / "SYN0001.nii"
        path.write_bytes(content if whole else content[: rng.integers(len(content))])
        try:
            read_volume(path, frames=[None, 4][number % 3 % 2])
        except ValueError as error:
            refused += 1
            assert "SYN" not in str(error) and "/" not in str(error)
    assert examples / 4 < refused < examples and not len(recwarn)


@pytest.mark.parametrize(
    ("shape", "expected", "timed"),
    [
        ((6, 5, 4, 1), (4, 5, 6), False),
        ((6, 5, 1), (1, 5, 6), False),
        ((6, 5, 4, 3, 1), (3, 4, 5, 6), True),
        ((6, 5, 1, 3), (3, 1, 5, 6), True),
    ],
)
def test_case_01_a_trailing_axis_of_one_is_no_axis(tmp_path, shape, expected, timed):
    path = save(tmp_path / "a.nii", np.zeros(shape, np.float32))
    assert read_volume(path)[0].shape == expected and open_volume(path).timed == timed


@pytest.mark.parametrize(
    "zooms",
    [(1.5, 8, 10), (0, 0, 0), (0.2, 0.2, 10), (1, 1, 1), (np.nan, 1.5, 10), (1.5, np.nan, 10)],
)
@pytest.mark.parametrize("code", [0, 1])
def test_case_08_a_spacing_no_heart_has_needs_a_default(tmp_path, zooms, code):
    path = save(
        tmp_path / "a.nii", noise(6, 5, 4), zooms=zooms, affine=np.diag([*zooms, 1]), code=code
    )
    with pytest.raises(
        ValueError,
        match=r"in-plane spacing .* mm (is outside 0.5..3.0 mm|was never set); give a default",
    ):
        read_volume(path)
    assert read_volume(path, default_spacing=(1.8, 1.7))[1] == (1.8, 1.7)


def test_case_08_without_orientation_pixdim_counts(tmp_path):
    path = save(tmp_path / "a.nii", noise(6, 5, 4), zooms=(1.25, 1.5, 10), code=0)
    volume = open_volume(path, default_spacing=(9, 9))
    assert volume.spacing == (1.5, 1.25) and volume.affine is None
    assert open_volume(patch(path, PIXDIM, 1, -1.25, -1.5, -10, 0, 0, 0, 0)).spacing == (1.5, 1.25)


def test_case_08_an_orientation_stands_in_for_pixdim(tmp_path):
    # sides 1.5 and 1.56
    turned = np.array([[-1.2, 0.6, 5, 0], [-0.9, -0.8, 6, 0], [0, -1.2, -6, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii", noise(6, 5, 4), zooms=(0, 0, 0), affine=turned)
    assert open_volume(path).spacing == pytest.approx((np.sqrt(2.44), 1.5), abs=1e-6)


def test_case_08_a_broken_sform_gives_way_to_qform(tmp_path):
    image = nibabel.Nifti1Image(noise(6, 5, 4), UPRIGHT)
    image.set_qform(UPRIGHT, 1)
    image.set_sform(np.diag([0, 0, 0, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(open_volume(tmp_path / "a.nii").affine, UPRIGHT)
    patch(tmp_path / "a.nii", (256, "<3f"), 5, 5, 5)  # no quaternion either
    volume = open_volume(tmp_path / "a.nii")
    assert volume.affine is None and volume.spacing == (1.5, 1.5)


def cine_with_time_at(
    axis: int, path: Path, *, frames: int, size=(40, 44, 3)
) -> tuple[np.ndarray, Path]:
    """(T, Z, Y, X), and the file that has T elsewhere; pixdim goes with the axes."""
    cine = noise(*size, frames)
    zooms = [1.25, 1.5, 10.0]
    zooms.insert(axis, 0.03)
    return cine.T, save(path, np.moveaxis(cine, 3, axis), zooms=tuple(zooms), code=0)


@pytest.mark.parametrize(("frames", "declared"), [(50, None), (50, 50), (30, 30)])
@pytest.mark.parametrize("axis", [0, 2, 3])
@BOTH
def test_case_17_the_time_axis_is_found_by_its_length(tmp_path, axis, frames, declared, name):
    cine, path = cine_with_time_at(axis, tmp_path / name, frames=frames)
    volume = open_volume(path, frames=declared)
    assert (volume.frames, volume.shape, volume.spacing) == (frames, (3, 44, 40), (1.5, 1.25))
    np.testing.assert_array_equal(read_volume(path, frames=declared)[0], cine)
    np.testing.assert_array_equal(volume.take([0, frames - 1])[frames - 1], cine[-1])


def test_case_17_a_single_slice_may_have_its_time_before_it(tmp_path):
    cine, path = cine_with_time_at(2, tmp_path / "a.nii", frames=50, size=(40, 44, 1))
    np.testing.assert_array_equal(read_volume(path)[0], cine)


def test_case_17_an_affine_of_other_axes_is_not_used(tmp_path):
    path = save(
        tmp_path / "a.nii",
        noise(50, 40, 44, 3),
        zooms=(0.03, 1.25, 1.5, 10),
        affine=np.diag([1.5, -1.5, 9, 1]),
    )
    assert open_volume(path).affine is None


@pytest.mark.parametrize(
    ("shape", "declared"),
    [
        ((50, 40, 50, 3), None),
        ((30, 40, 30, 3), 30),  # two axes of that length
        ((40, 44, 3, 20), 30),
        ((30, 44, 10, 3), 30),  # none, or one that leaves no stack
        ((40, 44, 30, 3), None),
        ((30, 40, 44, 3), None),
    ],  # more slices than there can be
)
def test_case_17_a_shape_that_leaves_it_open_is_refused(tmp_path, shape, declared):
    with pytest.raises(
        ValueError,
        match=f"which axis is time. shape {' x '.join(map(str, shape))}, {declared or 'unknown'}",
    ):
        open_volume(save(tmp_path / "a.nii", noise(*shape), code=0), frames=declared)


@pytest.mark.parametrize(
    ("shape", "declared"),
    [
        ((50, 40, 10, 50), None),
        ((13, 14, 12, 12), 12),
        ((50, 50, 7, 8), None),
        ((40, 44, 12, 12), None),
        ((40, 44, 26, 30), None),
        ((40, 44, 10, 25), None),
        ((256, 216, 20, 12), None),
    ],
)
def test_case_17_the_last_axis_goes_first(tmp_path, shape, declared):
    volume = open_volume(save(tmp_path / "a.nii", np.zeros(shape, np.uint8)), frames=declared)
    assert (volume.frames, volume.shape) == (shape[3], shape[2::-1])


@pytest.mark.parametrize(
    "shape",
    [
        (10, 60, 50),
        (60, 10, 50),
        (60, 50, 40),
        (40, 44, 50, 50),
        (10, 60, 50, 70),
        (9, 9, 9),
        (1, 60, 50, 70),
        (60, 1, 50),
    ],
)
def test_case_17_a_shape_whose_planes_are_elsewhere_is_refused(tmp_path, shape):
    path = save(tmp_path / "a.nii", np.zeros(shape, np.uint8))
    with pytest.raises(
        ValueError, match=f"which axis is (what|time). shape {' x '.join(map(str, shape))}"
    ):
        open_volume(path)


@pytest.mark.parametrize(
    ("shape", "usual"),
    [
        ((20, 18, 4, 1, 6), (20, 18, 4, 6)),
        ((20, 18, 4, 6, 1, 1), (20, 18, 4, 6)),
        ((20, 18, 4, 1, 1), (20, 18, 4, 1)),
    ],
)
@BOTH
def test_case_01_single_axes_beyond_the_third_are_no_axes(tmp_path, shape, usual, name):
    array = noise(*shape)
    volume = open_volume(
        save(tmp_path / name, array, zooms=(1.5, 1.2, 9, *[0.03] * (len(shape) - 3)))
    )
    assert (volume.frames, volume.shape, volume.spacing) == (usual[3], (4, 18, 20), (1.5, 1.5))
    np.testing.assert_array_equal(
        np.stack([*volume.take(range(usual[3])).values()]), array.reshape(usual).T
    )


def test_a_vector_image_is_no_cine(tmp_path):
    path = save(tmp_path / "a.nii", noise(20, 18, 4, 1, 3))
    with pytest.raises(ValueError, match="not a volume: shape 20 x 18 x 4 x 3, vectors"):
        open_volume(patch(path, (68, "<h"), 1007))


@pytest.mark.parametrize(("code", "unit"), [(1, 1e-3), (2, 1), (3, 1e3), (0, 1), (5, 1), (10, 1)])
@pytest.mark.parametrize("declared", [0, 1])
def test_case_08_spacing_is_read_in_the_unit_that_the_header_names(tmp_path, code, unit, declared):
    zooms = tuple(np.array((1.25, 1.5, 10)) * unit)
    path = save(
        tmp_path / "a.nii",
        noise(20, 18, 4),
        zooms=zooms,
        affine=np.diag([-zooms[0], -zooms[1], -zooms[2], 1]),
        code=declared,
    )
    volume = open_volume(patch(path, (123, "<B"), code))
    assert volume.spacing == pytest.approx((1.5, 1.25)) and volume.flags == ()
    if declared:
        np.testing.assert_allclose(volume.affine, np.diag([-1.25, -1.5, -10, 1]), rtol=1e-6)


def test_case_08_a_unit_that_gives_no_heart_is_named(tmp_path):
    path = patch(save(tmp_path / "a.nii", noise(20, 18, 4)), (123, "<B"), 1)
    with pytest.raises(ValueError, match="1500 x 1500 mm .the header counts in metres. is outside"):
        open_volume(path)


@pytest.mark.parametrize(
    ("sform", "spacing", "flags"),
    [
        ((1.5, 1.5, 10), 1.5, ()),
        ((1.4, 1.4, 10), 1.4, ("spacing_disputed",)),
        ((1, 1, 1), 1.5, ()),
        ((1500, 1500, 9), 1.5, ("spacing_disputed",)),
        ((1.501, 1.5, 9), 1.501, ()),
    ],
)
def test_case_08_two_spacings_in_one_header_are_told(tmp_path, sform, spacing, flags):
    volume = open_volume(
        save(tmp_path / "a.nii", noise(20, 18, 4), affine=np.diag([*-np.array(sform), 1]))
    )
    assert volume.spacing[1] == pytest.approx(spacing) and volume.flags == flags


@pytest.mark.parametrize("extra", [1, 20 * 18 * 4 * 2])
@BOTH
def test_a_file_that_holds_more_than_its_header_says_is_not_half_read(tmp_path, name, extra):
    path = save(tmp_path / name, noise(20, 18, 4, 3))
    content = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    path.write_bytes((gzip.compress if name.endswith("gz") else bytes)(content + b"\1" * extra))
    if extra == 1:
        assert open_volume(path).frames == 3
    else:
        with pytest.raises(ValueError, match="the file holds more frames than its header says"):
            open_volume(path)


def test_a_gzipped_file_that_was_cut_is_refused_when_it_is_opened(tmp_path):
    """Whoever reads the first frames alone must come to the same verdict as who reads them all."""
    path = save(tmp_path / "a.nii.gz", noise(40, 40, 10, 12))
    whole = path.read_bytes()
    for keep in (len(whole) - 1, len(whole) - 4, len(whole) - 8, len(whole) // 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="file is truncated or corrupt"):
            open_volume(path)


def test_several_gzip_streams_in_one_file_and_zeros_behind_them_are_read(tmp_path):
    path = save(tmp_path / "a.nii.gz", array := noise(40, 40, 10, 3))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(
        b"".join(gzip.compress(content[k : k + 9999]) for k in range(0, len(content), 9999))
        + b"\0" * 16
    )
    np.testing.assert_array_equal(read_volume(path)[0], array.T)
    path.write_bytes(gzip.compress(content) + b"what does not belong here")
    with pytest.raises(ValueError, match="file is truncated or corrupt"):
        open_volume(path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\0" * 128 + b"DICM", "DICOM; convert it"),
        (b"PK\3\4", "a zip archive"),
        (b"\x89HDF\r\n", "HDF5"),
    ],
)
def test_another_format_is_named(tmp_path, start, words):
    (tmp_path / "a.nii.gz").write_bytes(start + b"\0" * 600)
    with pytest.raises(ValueError, match=f"not a NIfTI file but {words}"):
        open_volume(tmp_path / "a.nii.gz")


def test_a_header_whose_voxels_are_elsewhere_is_refused(tmp_path):
    path = patch(save(tmp_path / "a.nii", noise(20, 18, 4)), (344, "<4s"), b"ni1\0")
    with pytest.raises(ValueError, match="a header without its voxels"):
        open_volume(path)
    nibabel.analyze.AnalyzeImage(noise(20, 18, 4), np.eye(4)).to_filename(tmp_path / "b.img")
    (tmp_path / "b.hdr").rename(tmp_path / "b.nii")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        open_volume(tmp_path / "b.nii")


def test_the_packed_file_goes_before_the_plain_one(tmp_path):
    packed, plain = tmp_path / "sa.nii.gz", tmp_path / "sa.nii"
    assert nifti(tmp_path, "sa") == packed
    plain.touch()
    assert nifti(tmp_path, "sa") == plain
    packed.touch()
    assert nifti(tmp_path, "sa") == packed


def test_opening_reads_no_voxels(tmp_path):
    path = save(tmp_path / "a.nii", noise(40, 44, 10, 5))
    with path.open("r+b") as file:
        file.seek(352)
        file.write(b"\xff" * 1000)
    assert isinstance(open_volume(path), Volume)


# by the numbers


def test_an_axis_of_slices_is_told_from_time_by_gap_and_number():
    def axis(shape, *, frames=None, gap=10.0, side=1.5) -> int | None:
        try:
            return _time_axis(shape, np.array([side, 1.5, gap, 0.0]), frames)
        except ValueError:
            return None

    assert axis((200, 200, 10, 30)) == axis((200, 200, 20, 30)) == axis((200, 200, 31, 32)) == 3
    assert axis((200, 200, 20, 20)) == axis((200, 200, 20, 3)) == 3  # the gap tells
    assert axis((200, 200, 21, 21)) is axis((200, 200, 21, 3)) is None  # too many for slices
    assert axis((200, 200, 21, 22)) == 3
    for gap, told in ((3.0, 3), (2.9, None), (25.0, 3), (25.1, None)):
        assert axis((200, 200, 12, 12), gap=gap) == told
    assert axis((200, 200, 12, 12), gap=3.0, side=3.0) is None  # no larger than a pixel
    assert axis((200, 200, 50, 10)) == 2 and axis((50, 200, 200, 10)) == 0
    assert axis((200, 200, 50, 50)) == 3 and axis((50, 200, 50, 10)) is None
    assert axis((200, 30, 50, 10)) is axis((200, 200, 50, 31)) is None  # no stack is left
    assert axis((200, 31, 50, 30)) == 2
    assert axis((200, 200, 40, 10), frames=40) == 2 and axis((200, 200, 50, 10), frames=40) is None
    assert axis((200, 200, 10, 41), frames=40) is None and axis((200, 200, 10, 40), frames=40) == 3


def test_the_first_possible_spacing_counts_and_a_dispute_is_told():
    def told(sides, zooms, default=None):
        affine = None if sides is None else np.diag([*sides, 1.0])
        return _spacing(affine, np.array(zooms, float), default, 1.0)

    assert told((1.5, 1.4, 10), (1.5, 1.4, 10)) == ((1.4, 1.5), False)
    assert told((1.5, 1.4, 10), (1.5, 1.42, 10)) == ((1.4, 1.5), False)
    assert told((1.5, 1.4, 10), (1.5, 1.45, 10)) == ((1.4, 1.5), True)
    assert told((1.5, 1.4, 10), (1.5, 1.4, 8)) == ((1.4, 1.5), False)  # the gap is nobody's
    assert told((1.5, 1.4, 10), (0.0, 0.0, 0.0)) == ((1.4, 1.5), False)
    assert told((9.0, 9.0, 9.0), (1.5, 1.4, 10)) == ((1.4, 1.5), True)  # absurd
    assert told((1.0, 1.0, 1.0), (1.5, 1.4, 10)) == ((1.4, 1.5), False)  # never set
    assert told(None, (1.0, 1.0, 10)) == ((1.0, 1.0), False)
    assert told((0.5, 3.0, 10), (0, 0, 0)) == ((3.0, 0.5), False)
    for sides in ((0.49, 1.5, 10), (1.5, 3.01, 10), (1.0, 1.0, 1.0)):
        assert told(None, sides, (1.8, 1.7)) == ((1.8, 1.7), False)
        with pytest.raises(
            ValueError, match="never set" if sides[2] == 1 else "outside 0.5..3.0 mm"
        ):
            told(None, sides)


def test_a_gzipped_file_ends_with_its_length_or_is_counted(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise(40, 44, 3))
    frame = 40 * 44 * 3 * open_volume(path).dtype.itemsize
    content = gzip.decompress(path.read_bytes())
    for more, fine in ((0, True), (1, True), (frame - 1, True), (frame, False), (-1, False)):
        data = content + bytes(more) if more >= 0 else content[:more]
        path.write_bytes(gzip.compress(data))
        if fine:
            assert open_volume(path).frames == 1
        else:
            with pytest.raises(
                ValueError, match="more than it holds" if more < 0 else "more frames"
            ):
                open_volume(path)


def test_files_of_vectors_are_told_by_their_intent(tmp_path):
    def opened(code: int, *axes: int) -> int | None:
        path = save(tmp_path / "a.nii", np.zeros((40, 44, *axes), np.uint8))
        try:
            return open_volume(patch(path, (68, "<h"), code)).frames
        except ValueError as error:
            assert "not a volume: shape 40 x 44 x 3 x 6, vectors" in str(error)
            return None

    for code in (1005, 1006, 1007, 2003, 2004):  # matrices, vectors, colours
        assert opened(code, 3, 6) is None and opened(code, 3) == 1
    for code in (0, 1004, 1008, 2001, 2002, 2005):
        assert opened(code, 3, 6) == 6
