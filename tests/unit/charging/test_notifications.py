"""The outbox: no wake-up is lost, nothing is told to who need not hear it, and bad consumers harm nobody else."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

REAUTHORIZATION = {"notificationType": "REAUTHORIZATION", "reauthorizationDetails": [{"ratingGroup": 1}]}


async def test_a_grant_tells_the_starved_session_and_only_it(tenant: Any, consumer: Any) -> None:
    await tenant.put(1000)
    fed, _ = await tenant.create(1, notifyUri=f"{consumer.uri}/fed")
    starved, _ = await tenant.create(2, notifyUri=f"{consumer.uri}/starved")
    await tenant.grant(500)
    path, event, body = await asyncio.wait_for(consumer.heard.get(), 10)
    assert path.endswith("/starved") and body == REAUTHORIZATION and uuid.UUID(event)
    assert (await tenant.update(starved, 1))["grantedUnit"] == {"totalVolume": 500}
    await tenant.update(fed, 1, 10)
    assert await _pending(tenant) == 0 and consumer.heard.empty()


async def test_what_one_session_gives_back_wakes_another(tenant: Any, consumer: Any) -> None:
    await tenant.put(1000)
    fed, _ = await tenant.create(1)
    starved, _ = await tenant.create(2, notifyUri=consumer.uri)
    await tenant.release(fed, 1, 300)
    assert await consumer.next() == REAUTHORIZATION
    assert (await tenant.update(starved, 1))["grantedUnit"] == {"totalVolume": 700}


async def test_a_starved_session_that_was_taken_for_dead_is_woken_too(tenant: Any, consumer: Any) -> None:
    await tenant.put(0)
    where, _ = await tenant.create(1, notifyUri=consumer.uri)
    await tenant.database.execute(
        "UPDATE session SET check_at = now() - interval '1 s', expires_at = now() - interval '1 s' WHERE ref = $1",
        uuid.UUID(where.rsplit("/", 1)[1]),
    )
    while await tenant.database.fetchval("SELECT close_expired()"):
        pass
    await tenant.grant(400)
    assert await consumer.next() == REAUTHORIZATION
    assert (await tenant.update(where, 1))["grantedUnit"] == {"totalVolume": 400}


async def test_a_grant_during_a_denial_is_not_missed(tenant: Any, consumer: Any) -> None:
    """Many creates against one grant at the same moment: each gets quota or is told that there is some now."""
    for number in range(6):
        account, imsi = f"race-{number}", f"{tenant.imsi}"[:-2] + f"{number:02}"
        tenant.account, tenant.imsi = account, imsi
        await tenant.put(0)

        async def create(n: int = number) -> bool:
            _, information = await tenant.create(n, notifyUri=f"{consumer.uri}/{n}")
            return "grantedUnit" in information

        got, _ = await asyncio.gather(create(), tenant.grant(100))
        if not got:
            assert await consumer.next() == REAUTHORIZATION
        else:
            assert consumer.heard.empty()


async def test_suspension_aborts_and_resumption_reauthorizes(tenant: Any, consumer: Any) -> None:
    await tenant.put()
    await tenant.create(1, notifyUri=consumer.uri)
    await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "suspended"})
    assert await consumer.next() == {"notificationType": "ABORT_CHARGING"}
    await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "suspended"})
    await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "active"})
    assert await consumer.next() == REAUTHORIZATION, "a status that did not change tells nobody"


async def test_a_grant_to_a_suspended_account_wakes_nobody_yet(tenant: Any, consumer: Any) -> None:
    await tenant.put(0)
    await tenant.create(1, notifyUri=consumer.uri)
    await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "suspended"})
    assert await consumer.next() == {"notificationType": "ABORT_CHARGING"}
    await tenant.grant(500)
    assert await _pending(tenant) == 0
    await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "active"})
    assert await consumer.next() == REAUTHORIZATION


async def test_delivery_is_repeated_with_the_same_id_until_acknowledged(tenant: Any, consumer: Any) -> None:
    consumer.statuses += [500, 503]
    await tenant.put(0)
    await tenant.create(1, notifyUri=consumer.uri)
    await tenant.grant(10)
    events = {(await asyncio.wait_for(consumer.heard.get(), 15))[1] for _ in range(3)}
    assert len(events) == 1
    assert consumer.heard.empty()


async def test_a_consumer_that_knows_no_such_session_is_not_asked_again(tenant: Any, consumer: Any) -> None:
    consumer.statuses.append(404)
    await tenant.put(0)
    await tenant.create(1, notifyUri=consumer.uri)
    await tenant.grant(10)
    await consumer.next()
    for _ in range(100):
        if await _pending(tenant) == 0:
            break
        await asyncio.sleep(0.05)
    await tenant.grant(10)
    assert await _pending(tenant) == 0


async def test_a_moved_consumer_is_told_where_it_is_now(tenant: Any, consumer: Any) -> None:
    await tenant.put(0)
    where, _ = await tenant.create(1, notifyUri="http://127.0.0.1:1/old")
    await tenant.grant(10)
    await tenant.update(where, 1, want=None, notifyUri=f"{consumer.uri}/new")
    assert (await asyncio.wait_for(consumer.heard.get(), 15))[0].endswith("/new")


async def test_stalled_and_poisonous_consumers_delay_nobody(tenant: Any, consumer: Any) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    stalled = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    await tenant.put(0)
    for n in range(5):
        await tenant.create(n, notifyUri=stalled)
        await tenant.create(100 + n, notifyUri=f"http://[::{'f' * n}]:99999/")
        await tenant.create(200 + n, notifyUri=f"http://no-such-host-{n}.invalid/")
    await tenant.create(1000, notifyUri=consumer.uri)
    await tenant.grant(10)
    assert await consumer.next(4) == REAUTHORIZATION
    assert (await tenant.one.get("/healthz")).status_code == 200
    server.close()


async def test_notifications_survive_a_kill(ocs: Any, consumer: Any) -> None:
    port = ocs.start()
    refused = consumer.uri.replace("/notify", "/later")
    consumer.statuses += [503]
    async with ocs.client("alpha") as client:
        account = {"subscriberIds": ["imsi-208930000000001"], "currency": "EUR"}
        await client.put("/ocs/v1/accounts/a1", json=account)
        body = {
            "subscriberIdentifier": "imsi-208930000000001",
            "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
            "invocationSequenceNumber": 0,
            "notifyUri": refused,
            "multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {}}],
        }
        await client.post("/nchf-convergedcharging/v3/chargingdata", json=body)
        grant = {"requestId": str(uuid.uuid4()), "buckets": [{"unit": "octets", "amount": 5, "source": "topup:x"}]}
        assert (await client.post("/ocs/v1/accounts/a1/grants", json=grant)).status_code == 200
    first = await asyncio.wait_for(consumer.heard.get(), 10)
    ocs.processes[0].kill()
    ocs.processes[0].wait()
    ocs.start(port)
    again = await asyncio.wait_for(consumer.heard.get(), 30)
    assert again == first


async def _pending(tenant: Any) -> int:
    return int(
        await tenant.database.fetchval(
            """SELECT count(*) FROM outbox JOIN session USING (ref) WHERE brand = $1 AND done_at IS NULL
               AND failed_at IS NULL""",
            tenant.brand,
        )
    )
