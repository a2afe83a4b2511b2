"""Nanoseconds of processor time per value sealed through pymongocrypt's explicit encryption: what
ClientEncryption.encrypt costs a Python application, less the key vault, which is a dictionary here. libmongocrypt keeps
the data key in its cache.

One JSON object per line goes to stdout. Every value is opened again once.
"""

import argparse
import json
import statistics
import time

import bson
import pymongocrypt
from pymongocrypt.explicit_encrypter import ExplicitEncrypter
from pymongocrypt.mongocrypt import MongoCryptOptions
from pymongocrypt.state_machine import MongoCryptCallback

ALGORITHMS = ("AEAD_AES_256_CBC_HMAC_SHA_512-Deterministic", "AEAD_AES_256_CBC_HMAC_SHA_512-Random")
SIZES = (10, 100, 1024, 65536)


class Vault(MongoCryptCallback):
    """A key vault of one key, and no way out of the process."""

    def __init__(self):
        self.key = None

    def insert_data_key(self, data_key):
        self.key = bytes(data_key)
        return bytes(bson.decode(self.key)["_id"])

    def fetch_keys(self, filter):
        yield self.key

    def bson_encode(self, doc):
        return bson.encode(doc)

    def kms_request(self, kms_context):
        raise NotImplementedError("a local master key needs no service")

    def collection_info(self, database, filter):
        raise NotImplementedError("explicit encryption reads no collection info")

    def mark_command(self, database, cmd):
        raise NotImplementedError("explicit encryption marks no command")

    def close(self):
        pass


def seal(encrypter, value, algorithm, key_id):
    """What ClientEncryption.encrypt does with a value."""
    sealed = encrypter.encrypt(bson.encode({"v": value}), algorithm, key_id=key_id)
    return bson.decode(sealed)["v"]


def measure(encrypter, algorithm, key_id, size, count):
    value = "x" * size
    sealed = seal(encrypter, value, algorithm, key_id)
    assert sealed.subtype == 6
    opened = bson.decode(encrypter.decrypt(bson.encode({"v": sealed})))["v"]
    assert opened == value, "a value came back changed"
    rounds = []
    for _ in range(7):
        begun = time.process_time_ns()
        for _ in range(count):
            seal(encrypter, value, algorithm, key_id)
        rounds.append((time.process_time_ns() - begun) / count)
    return statistics.median(rounds), min(rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="values per round")
    options = parser.parse_args()
    vault = Vault()
    encrypter = ExplicitEncrypter(vault, MongoCryptOptions({"local": {"key": b"\7" * 96}}))
    key_id = encrypter.create_data_key("local")
    by = f"pymongocrypt {pymongocrypt.__version__}, libmongocrypt {pymongocrypt.libmongocrypt_version()}"
    for algorithm in ALGORITHMS:
        for size in SIZES:
            median, least = measure(encrypter, algorithm, key_id, size, max(1, options.count // (10 if size > 10000 else 1)))
            figures = {"by": by, "algorithm": algorithm, "bytes": size, "ns": round(median), "least_ns": round(least)}
            print(json.dumps(figures), flush=True)
    encrypter.close()


if __name__ == "__main__":
    main()
