"""Names under which participants appear."""

from cmrdata.pseudonyms import hashed, read_salt


def test_a_hash_hides_the_id_and_needs_the_salt(tmp_path):
    salt = read_salt(tmp_path / "data")
    assert salt == read_salt(tmp_path / "data")
    assert (tmp_path / "data" / "salt").stat().st_mode & 0o077 == 0
    assert (
        hashed("SYN0001", salt)
        == hashed(" SYN0001\n", salt)
        != hashed("SYN0001", read_salt(tmp_path / "other"))
    )
    assert hashed("SYN0001", salt) != hashed("SYN0002", salt)
    assert len(hashed("SYN0001", salt)) == 17 and "SYN" not in hashed("SYN0001", salt)
