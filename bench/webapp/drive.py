"""Response times of a real web application, straight on MongoDB and through a proxy, at a moderate fixed rate.

Open loop: requests leave on a clock, whether or not earlier ones have been answered, and a response time counts from the
moment the request was due. The ways take turns in slices; ratios are taken within a round, and their median is quoted.
Every answer is checked.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
COLLECTIONS = {"direct": "plain", "haproxy": "plain", "empty": "plain", "mapped": "sealed"}
TARGET = 1.20


class Client:
    """HTTP/1.1 over kept connections, as little of it as the application needs, so that the client stays cheap."""

    def __init__(self, port):
        self.port = port
        self.idle = []

    async def request(self, method, path, body=None):
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        answer = await reader.readexactly(int(headers["content-length"]))
        self.idle.append((reader, writer))
        return int(lines[0].split(" ")[1]), json.loads(answer)

    def close(self):
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


class Clinic:
    """The mix of requests, and what their answers must be."""

    def __init__(self, client, way, patients):
        self.client = client
        self.patients = patients
        # A range of its own for each way, so that no number is created twice in one collection.
        self.next = 9_980_000_000 + 1_000_000 * list(COLLECTIONS).index(way)
        self.random = random.Random(way)
        self.created = {}

    async def step(self):
        dice = self.random.random()
        if dice < 0.2:
            await self.create()
        elif dice < 0.8:
            await self.look_up()
        else:
            await self.page()

    async def create(self):
        number = str(self.next)
        self.next += 1
        patient = {
            "nhs_number": number,
            "mrn": f"MRN-{number}",
            "postcode": "LS1 4AP",
            "date_of_birth": "1957-03-02T00:00:00",
            "notes": f"Seen in clinic {number}. " + "Reports intermittent chest tightness on exertion. " * 4,
            "address": {"line1": "12 Quarry Mount", "city": "Leeds"},
        }
        status, answer = await self.client.request("POST", "/patients", patient)
        check(status == 201, "a patient was not created", status, answer)
        self.created[number] = {"id": answer["id"], **patient}

    async def look_up(self):
        if self.created and self.random.random() < 0.3:
            number = self.random.choice(list(self.created))
            expected = self.created[number]
        else:
            number, expected = f"999{self.random.randrange(self.patients):07}", None
        status, answer = await self.client.request("GET", f"/patients/by-nhs-number/{number}")
        check(status == 200 and answer["nhs_number"] == number, "a patient was not found", status, answer)
        check(expected is None or answer == expected, "a patient came back changed", status, answer)
        check(expected is not None or answer["mrn"] == f"MRN-{number[3:]}", "another patient came back", status, answer)

    async def page(self):
        after = self.random.randrange(self.patients - 20)
        status, answer = await self.client.request("GET", f"/patients?after={after}")
        numbers = [patient["nhs_number"] for patient in answer] if status == 200 else []
        check(numbers == [f"999{id:07}" for id in range(after + 1, after + 21)], "a page is wrong", status, answer)


def check(condition, what, status, answer):
    if not condition:
        raise AssertionError(f"{what}: {status} {answer}")


async def slice_of(clinic, rate, seconds):
    """Response times in milliseconds of one slice."""
    loop = asyncio.get_running_loop()
    times = []

    async def one(due):
        await clinic.step()
        times.append((loop.time() - due) * 1e3)

    begun = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            await asyncio.sleep(max(0, due - loop.time()))
            tasks.create_task(one(due))
    return times


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, round((len(values) - 1) * share))]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def started(command, **options):
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        if process.stdin:
            # The servers end with their input, even when a wrapper such as cargo stands between.
            process.stdin.close()
        else:
            process.terminate()
        process.wait()


async def wait_until_up(port):
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    raise RuntimeError("the application does not come up (its message is above)")


async def compare(options, uris, stack):
    clinics = {}
    for way in options.ways:
        port = free_port()
        environment = {**os.environ, "MONGODB_URI": uris[way], "COLLECTION": COLLECTIONS[way]}
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--port", str(port), "app:app"]
        # A connection outlives the slices of the other ways.
        command += ["--log-level", "warning", "--no-access-log", "--timeout-keep-alive", "3600"]
        stack.enter_context(started(command, env=environment))
        await wait_until_up(port)
        clinics[way] = Clinic(Client(port), way, options.patients)
        await slice_of(clinics[way], options.rate, 1)

    rounds = []
    for number in range(options.rounds):
        turn = number % len(options.ways)
        figures = {}
        for way in options.ways[turn:] + options.ways[:turn]:
            times = await slice_of(clinics[way], options.rate, options.slice)
            figures[way] = {"p50_ms": percentile(times, 0.50), "p95_ms": percentile(times, 0.95), "requests": len(times)}
        rounds.append(figures)
    for clinic in clinics.values():
        clinic.client.close()
    return rounds


def report(options, rounds):
    """Prints the table; the answer is each way's ratios to direct."""
    ratios = {}
    print(f"{options.rate} requests per second, {options.rounds} rounds of {options.slice} s per way")
    for way in options.ways:
        p50, p95 = (statistics.median(r[way][name] for r in rounds) for name in ("p50_ms", "p95_ms"))
        line = f"  {way:<8} p50 {p50:6.2f} ms  p95 {p95:6.2f} ms"
        if way != "direct" and "direct" in options.ways:
            ratios[way] = {
                name: statistics.median(r[way][name] / r["direct"][name] for r in rounds) for name in ("p50_ms", "p95_ms")
            }
            line += f"  of direct: p50 {ratios[way]['p50_ms']:.2f}, p95 {ratios[way]['p95_ms']:.2f}"
        print(line)
    if "mapped" in ratios:
        for name, value in ratios["mapped"].items():
            print(f"  {'met   ' if value <= TARGET else 'MISSED'} {name} through fieldveil: {value:.2f}, target ≤ {TARGET}")
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", required=True, help="command that starts the servers (load --serve), as one string")
    parser.add_argument("--ways", default="direct,haproxy,mapped", type=lambda text: text.split(","))
    parser.add_argument("--rate", type=float, default=50, help="requests per second")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slice", type=float, default=10, help="seconds")
    parser.add_argument("--patients", type=int, default=10000)
    parser.add_argument("--quick", action="store_true", help="a smoke run: checks everything, proves nothing about speed")
    parser.add_argument("--json", help="write every figure to this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.slice, options.patients = 1, 1, 500
    serve = options.servers.split() + ["--serve", "--ways", ",".join(options.ways), "--patients", str(options.patients)]
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(started(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        line = servers.stdout.readline()
        if not line:
            raise SystemExit("drive: the servers do not start (their message is above)")
        rounds = asyncio.run(compare(options, json.loads(line), stack))
    ratios = report(options, rounds)
    if options.json:
        figures = {"at": time.time(), "rate": options.rate, "slice_seconds": options.slice, "rounds": rounds, "ratios": ratios}
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
