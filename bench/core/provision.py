"""Runs in the BSS's pod: subscribers for a bench, with one SIM's keys for all, and OCS accounts for the first of them.

Reads JSON on standard input: {first, count, accounts, key, opc, document, ocs}; prints JSON: {seconds, count}.
"""

import asyncio
import json
import os
import sys
import time

import asyncpg
import httpx
from nacl.public import PublicKey, SealedBox


async def main() -> None:
    given = json.load(sys.stdin)
    box = SealedBox(PublicKey(bytes.fromhex(os.environ["DIRECTORY_PUBLIC_KEY"])))
    sealed = bytes(box.encrypt(json.dumps({"k": given["key"], "opc": given["opc"], "amf": "8000"}).encode()))
    width = len(given["first"])
    imsis = [f"{int(given['first']) + n:0{width}}" for n in range(given["count"])]
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    began = time.monotonic()
    for start in range(0, len(imsis), 5000):
        some = imsis[start : start + 5000]
        await connection.execute(
            "SELECT directory.put_subscribers($1, $2, $3, $4)",
            some,
            [None] * len(some),
            [sealed] * len(some),
            [json.dumps(given["document"])] * len(some),
        )
    seconds = time.monotonic() - began
    await connection.close()
    headers = {"Authorization": f"Bearer {os.environ['OCS_TOKEN']}"}
    async with httpx.AsyncClient(base_url=given["ocs"], headers=headers, timeout=30) as ocs:
        for number, imsi in enumerate(imsis[: given["accounts"]]):
            account = {"subscriberIds": [f"imsi-{imsi}"], "currency": "EUR"}
            (await ocs.put(f"/ocs/v1/accounts/bench-{imsi}", json=account)).raise_for_status()
            bucket = {"unit": "octets", "amount": 10**12, "source": "plan:bench"}
            grant = {"requestId": f"00000000-0000-4000-9000-{number:012}", "buckets": [bucket]}
            (await ocs.post(f"/ocs/v1/accounts/bench-{imsi}/grants", json=grant)).raise_for_status()
    print(json.dumps({"seconds": seconds, "count": len(imsis)}))


asyncio.run(main())
