"""GridFS with its chunks and file names protected: chunks are sealed one by one, so ranges are read chunk by chunk."""

from __future__ import annotations

import hashlib
import os
import time

import gridfs
import pytest

from harness import is_envelope

COLLECTIONS = {
    "fs.chunks": {"data": '{ mode = "random" }'},
    "fs.files": {"filename": '{ mode = "deterministic", type = "string" }', "metadata": '{ mode = "random" }'},
}

# The scan looks for markers, not for random bytes: this one stands in every chunk.
SIZE = 50 << 20


@pytest.fixture(scope="module")
def content(markers) -> bytes:
    marker = markers.text("gridfs").encode()
    block = marker + os.urandom((64 << 10) - len(marker))
    return block * (SIZE // len(block))


@pytest.fixture(scope="module")
def stored(app, content, markers):
    """A file of 50 MB, its name, and the time it took to store."""
    bucket = gridfs.GridFSBucket(app)
    name = markers.text("scan")
    begun = time.monotonic()
    file_id = bucket.upload_from_stream(name, content, metadata={"patient": markers.text("meta")})
    return bucket, file_id, name, time.monotonic() - begun


def test_a_large_file_comes_back_whole(stored, content, direct):
    bucket, file_id, name, took = stored
    begun = time.monotonic()
    with bucket.open_download_stream_by_name(name) as stream:
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(content).digest()
        assert stream.length == len(content)
    took += time.monotonic() - begun
    print(f"50 MB up and down in {took:.1f} s")
    for chunk in direct["fs.chunks"].find({"files_id": file_id}, limit=3):
        assert is_envelope(chunk["data"])
    assert direct["fs.files"].find_one({"_id": file_id})["length"] == len(content)


@pytest.mark.parametrize("at, length", [(0, 10), (261119, 2), (261120, 261120), (SIZE - 5, 100), (12_345_678, 1_000_000)])
def test_ranges_are_read_from_their_chunks(stored, content, at, length):
    with stored[0].open_download_stream(stored[1]) as stream:
        stream.seek(at)
        assert stream.read(length) == content[at:at + length]


def test_names_are_found_and_files_deleted(stored, app, direct, markers):
    bucket, name = stored[0], markers.text("small")
    small = bucket.upload_from_stream(name, b"", metadata=None)
    other = bucket.upload_from_stream(name, b"second revision")
    assert [f._id for f in bucket.find({"filename": name}).sort("uploadDate", 1)] == [small, other]
    with bucket.open_download_stream_by_name(name, revision=0) as stream:
        assert stream.read() == b""
    bucket.rename(other, renamed := markers.text("renamed"))
    assert bucket.find({"filename": renamed}).to_list()[0]._id == other
    assert gridfs.GridFS(app).exists(filename=renamed)
    bucket.delete(other)
    assert direct["fs.chunks"].count_documents({"files_id": other}) == 0
