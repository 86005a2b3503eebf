"""JSON lines that survive a kill."""

import pytest

from ktae.files.json_lines import append, read, write


def test_rows_come_back(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert read(path) == []
    write(path, [{"a": 1}])
    append(path, [{"a": "zwei\n"}, {"a": None}])
    assert read(path) == [{"a": 1}, {"a": "zwei\n"}, {"a": None}]
    write(path, [{"b": 2}])
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(path, [{"b": 3}, {"b": path}])
    assert read(path) == [{"b": 2}]
    assert list(path.parent.iterdir()) == [path], "nothing temporary is left"


@pytest.mark.parametrize("cut", [b'{"a": 2', b"\xc3", b"{"])
def test_a_last_line_cut_off_is_left_out_and_replaced(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    for before in ([], [{"a": 1}]):
        write(path, before)
        path.write_bytes(path.read_bytes() + cut)
        assert read(path) == before
        append(path, [{"a": 3}])
        assert read(path) == [*before, {"a": 3}]


@pytest.mark.parametrize("bad", [b"{", b"\x00\x00", b"5", b"", b"[" * 10**5])
def test_a_bad_line_is_named(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + bad + b'\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"^\S+rows\.jsonl:2: not a JSON object$"):
        read(path)
