"""Commands about anchors say in one line what is wrong with the address, and train nothing."""

import pytest


@pytest.mark.parametrize(
    ("url", "command", "code", "said"),
    [("{folder}/absent", "anchors", 3, "No such file"), ("{folder}/file", "anchors", 3, "Not a directory"),
     ("{folder}/file", "anchor", 3, "File exists"), ("s3:/shop/x", "anchors", 2, "HEADRACE_ANCHORS_URL")],
)  # fmt: skip
def test_an_address_that_is_no_store_of_anchors_is_said(shop, tmp_path, url, command, code, said):
    (tmp_path / "file").write_text("")
    done = shop.command(command, HEADRACE_ANCHORS_URL=url.format(folder=tmp_path))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
