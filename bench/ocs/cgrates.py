"""The peer: CGRateS 0.10.4 (one engine, accounts in Redis that writes through to disk), as its operators tune it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from common import FIRST_IMSI, GRANT, Unfit, build, free_port, wait_for_port

TENANT = "cgrates.org"
# A balance without a rating subject is debited octet by octet: this one goes by the mebibyte, at no price.
SUBJECT = "*zero1048576ns"
_SERVICE = "~*req.Multiple-Services-Credit-Control"


def _field(path: str, kind: str, value: str) -> dict[str, Any]:
    return {"tag": path, "path": f"*cgreq.{path}", "type": kind, "value": value, "mandatory": kind == "*variable"}


def _processor(name: str, kind: int, flag: str, *more: dict[str, Any], granted: bool) -> dict[str, Any]:
    reply: list[dict[str, Any]] = [
        {"tag": "CCA", "type": "*template", "value": "*cca"},
        {
            "tag": "Refused", "filters": ["*notempty:~*cgrep.Error:"], "path": "*rep.Result-Code", "type": "*constant",
            "value": "5030", "blocker": True,
        },
    ]  # fmt: skip
    if granted:
        service = "*rep.Multiple-Services-Credit-Control"
        reply += [
            {"tag": "Group", "path": f"{service}.Rating-Group", "type": "*variable", "value": f"{_SERVICE}.Rating-Group"},
            {
                "tag": "Granted", "path": f"{service}.Granted-Service-Unit.CC-Total-Octets", "type": "*variable",
                "value": "~*cgrep.MaxUsage{*duration_nanoseconds}",
            },
            {"tag": "Result", "path": f"{service}.Result-Code", "type": "*constant", "value": "2001"},
        ]  # fmt: skip
    return {
        "id": name,
        "filters": ["*string:~*vars.*cmd:CCR", f"*string:~*req.CC-Request-Type:{kind}"],
        "flags": [flag, "*accounts"],
        "request_fields": [
            _field("ToR", "*constant", "*data"),
            _field("OriginID", "*variable", "~*req.Session-Id"),
            _field("RequestType", "*constant", "*prepaid"),
            _field("Category", "*constant", "generic"),
            _field("Account", "*variable", "~*req.Subscription-Id.Subscription-Id-Data"),
            _field("Destination", "*constant", "data"),
            _field("SetupTime", "*variable", "~*req.Event-Timestamp"),
            _field("AnswerTime", "*variable", "~*req.Event-Timestamp"),
            *more,
        ],
        "reply_fields": reply,
    }


def _settings(redis: int, rpc: int, diameter: int) -> dict[str, Any]:
    usage = _field("Usage", "*variable", f"{_SERVICE}.Requested-Service-Unit.CC-Total-Octets")
    used = _field("LastUsed", "*variable", f"{_SERVICE}.Used-Service-Unit.CC-Total-Octets")
    inside = ["*internal"]
    return {
        "general": {"log_level": 3, "logger": "*stdout", "default_tenant": TENANT},
        "listen": {
            "rpc_json": f"127.0.0.1:{rpc}",
            "rpc_gob": f"127.0.0.1:{free_port()}",
            "http": f"127.0.0.1:{free_port()}",
            "rpc_json_tls": f"127.0.0.1:{free_port()}",
            "rpc_gob_tls": f"127.0.0.1:{free_port()}",
            "http_tls": f"127.0.0.1:{free_port()}",
        },
        "data_db": {"db_type": "*redis", "db_host": "127.0.0.1", "db_port": redis, "db_name": "10"},
        "stor_db": {"db_type": "*internal"},
        "rals": {"enabled": True},
        "schedulers": {"enabled": True},
        # As shipped, every field of every event is indexed under one lock.
        "chargers": {"enabled": True, "string_indexed_fields": []},
        "sessions": {
            "enabled": True,
            "listen_bijson": f"127.0.0.1:{free_port()}",
            "chargers_conns": inside,
            "rals_conns": inside,
        },
        "apiers": {"enabled": True, "scheduler_conns": inside},
        "diameter_agent": {
            "enabled": True,
            "listen": f"127.0.0.1:{diameter}",
            "dictionaries_path": "",
            "sessions_conns": inside,
            "origin_host": "cgrates.bench",
            "origin_realm": "bench",
            "request_processors": [
                _processor("initial", 1, "*initiate", usage, granted=True),
                _processor("update", 2, "*update", usage, used, granted=True),
                _processor("terminate", 3, "*terminate", used, granted=False),
            ],
        },
    }


class Rpc:
    """JSON-RPC over one TCP connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._file = self._socket.makefile("r")

    def call(self, method: str, params: Any) -> Any:
        """The result of a call. Raises RuntimeError."""
        self._socket.sendall(json.dumps({"method": method, "params": [params], "id": 1}).encode() + b"\n")
        answer = json.loads(self._file.readline())
        if answer.get("error"):
            raise RuntimeError(f"CGRateS {method}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Cgrates:
    """CGRateS and its Redis in a folder, on free ports of the loopback interface."""

    name = "CGRateS 0.10.4"
    host = "cgrates.bench"

    def __init__(self, folder: Path, accounts: int, durable: bool = True) -> None:
        redis = shutil.which("redis-server") or os.environ.get("REDIS_SERVER")
        if redis is None:
            raise Unfit("redis-server is not installed (Debian: apt install redis-server)")
        self.folder, self.accounts = folder, accounts
        self.engine = build("cgrates", "github.com/cgrates/cgrates/cmd/cgr-engine", "cgr-engine")
        redis_port, self.rpc, self.port = free_port(), free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        sync = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self.redis = subprocess.Popen(
            [redis, "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *sync],
            stdout=subprocess.DEVNULL,
        )
        wait_for_port(redis_port, self.redis)
        config = folder / "cgrates.json"
        config.write_text(json.dumps(_settings(redis_port, self.rpc, self.port), indent=1))
        self.process = self._start()
        rpc = Rpc(self.rpc)
        rpc.call(
            "APIerSv1.SetChargerProfile",
            {"Tenant": TENANT, "ID": "default", "RunID": "*default", "AttributeIDs": ["*none"], "Weight": 0},
        )
        for number in range(accounts):
            rpc.call(
                "APIerSv1.SetBalance",
                {
                    "Tenant": TENANT,
                    "Account": f"{FIRST_IMSI + number:015}",
                    "BalanceType": "*data",
                    "Value": GRANT,
                    "Balance": {"ID": "bench", "RatingSubject": SUBJECT, "Weight": 10},
                },
            )
        rpc.close()

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self.folder / "cgrates.log", "ab") as log:
            process = subprocess.Popen(
                [str(self.engine), "-config_path", str(self.folder)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_for_port(self.rpc, process)
        wait_for_port(self.port, process)
        return process

    def way(self, front: str) -> list[str]:
        """The client's options for a front end: `gy` or `http` (here JSON-RPC over TCP)."""
        if front == "gy":
            return ["-protocol", "gy", "-address", f"127.0.0.1:{self.port}"]
        return ["-protocol", "jsonrpc", "-address", f"127.0.0.1:{self.rpc}"]

    def kill(self) -> None:
        """kill -9 of the engine, and start it again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = self._start()

    def charged(self) -> int:
        """Octets that are gone from the accounts."""
        rpc = Rpc(self.rpc)
        left = 0
        for number in range(self.accounts):
            account = rpc.call("APIerSv2.GetAccount", {"Tenant": TENANT, "Account": f"{FIRST_IMSI + number:015}"})
            left += sum(int(one["Value"]) for one in account["BalanceMap"]["*data"])
        rpc.close()
        return GRANT * self.accounts - left

    def check(self) -> str | None:
        """CGRateS has no check of its accounts."""
        return None

    def stop(self) -> None:
        for process in (self.process, self.redis):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
