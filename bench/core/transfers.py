"""Runs in the pod of the UEs: transfers by iperf3 on several UEs in turn, each way, each round the other way round.

Reads JSON on standard input: {sources: {name: [address, device]}, host, port, octets, rounds}; prints, for each transfer, a line
of JSON: {name, direction, bitsPerSecond} or {cause}. What comes before the first round warms up and is not printed.
"""

import json
import sys

from mvnobox.core.sim.ue_traffic import Source, iperf3

given = json.load(sys.stdin)
sources = [(name, Source(*where)) for name, where in given["sources"].items()]
target = (sources[0][1].resolve(given["host"]), given["port"])
for turn in range(-1, given["rounds"]):
    for name, source in sources if turn % 2 else reversed(sources):
        for direction in ("down", "up"):
            for _ in range(3):
                # The server may have ended with the client before.
                answer = iperf3(source, target, given["octets"], upload=direction == "up", timeout=60)
                if answer["ok"]:
                    break
            if not answer["ok"]:
                print(json.dumps({"cause": f"iperf3 {direction}: {answer['cause']}"}))
                raise SystemExit
            if turn >= 0:
                print(json.dumps({"name": name, "direction": direction, "bitsPerSecond": answer["bitsPerSecond"]}))
