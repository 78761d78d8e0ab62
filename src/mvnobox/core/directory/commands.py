"""The commands that Open5GS's clients and ordinary MongoDB clients send, answered from the store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import bson

from mvnobox.core.directory import answers
from mvnobox.core.directory.answers import COLLECTION, CommandError, failure
from mvnobox.core.directory.changes import Changes
from mvnobox.core.directory.documents import Assembler, Sealed
from mvnobox.core.directory.filters import Unsupported
from mvnobox.core.directory.queries import Queries, whole_number
from mvnobox.core.directory.session import AuthenticationFailed, Session
from mvnobox.core.directory.store import Store
from mvnobox.core.directory.updates import BadValue
from mvnobox.core.directory.wire import MOST_DOCUMENTS, Command
from mvnobox.core.directory.writes import Writes
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
Answer = dict[str, Any] | bytes
Handler = Callable[[Command, Session], Awaitable[Answer]]
# A wrong value that PostgreSQL found, not a fault of its own.
_VALUE_FAULTS = (asyncpg.InvalidParameterValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
# What a client may ask before it has said who it is.
_OPEN = {"hello", "ismaster", "ping", "buildinfo", "saslstart", "saslcontinue", "logout", "endsessions"}


class Commands:
    """Dispatch by the command's name, its first key."""

    def __init__(self, pool: asyncpg.Pool, private_key: bytes, database: str, *, tells_amf: bool = False) -> None:
        self.store = Store(pool, tells_amf=tells_amf)
        assembler = Assembler(private_key)
        self._database = database
        self._queries = Queries(self.store, assembler, Changes(pool, assembler, database, COLLECTION), database)
        self._writes = Writes(self.store, self._queries)
        self._greeted = 0
        self._known: dict[str, Handler] = {
            "hello": self._hello,
            "ismaster": self._hello,
            "ping": self._ok,
            "endsessions": self._ok,
            "killsessions": self._ok,
            "refreshsessions": self._ok,
            "buildinfo": self._build_info,
            "saslstart": self._sasl,
            "saslcontinue": self._sasl,
            "logout": self._logout,
            "connectionstatus": self._connection_status,
            "find": self._find,
            "getmore": self._get_more,
            "killcursors": self._kill_cursors,
            "count": self._count,
            "aggregate": self._aggregate,
            "update": self._update,
            "createindexes": self._create_indexes,
            "listindexes": self._list_indexes,
            "listcollections": self._list_collections,
            "listdatabases": self._list_databases,
        }

    def known(self, name: str) -> bool:
        """Whether a name is a command's (for metrics, whose labels must be few)."""
        return name in self._known

    async def run(self, command: Command, session: Session) -> Answer:
        """The answer to a command, errors included."""
        try:
            return await self._dispatch(command, session)
        except CommandError as error:
            return failure(error.code, error.name, str(error))
        except Unsupported as error:
            return failure(238, "NotImplemented", f"the subscriber directory does not support {error}")
        except BadValue as error:
            return failure(2, "BadValue", str(error))
        except AuthenticationFailed:
            return failure(18, "AuthenticationFailed", "Authentication failed.")
        except Sealed as error:
            log.error("%s", error, extra={"command": command.name})
            remedy = "provision the subscriber again, or check DIRECTORY_PRIVATE_KEY"
            return failure(8, "UnknownError", f"{error}; {remedy}")
        except _VALUE_FAULTS as error:
            return failure(121, "DocumentValidationFailure", str(error)[:200])
        except TROUBLE as error:
            log.error("the database does not answer: %s", type(error).__name__)
            # Clients repeat a read once on this code and keep the connection.
            return failure(262, "ExceededTimeLimit", "the directory's database does not answer; try again")
        except Exception as error:  # the client gets an error it understands, the others go on
            log.exception("command failed", extra={"command": command.name[:40], "error": type(error).__name__})
            return failure(1, "InternalError", "the directory could not answer; its log says why")

    async def _dispatch(self, command: Command, session: Session) -> Answer:
        name = command.name.lower()
        if command.legacy and name not in ("hello", "ismaster"):
            raise CommandError(352, "UnsupportedOpQueryCommand", "OP_QUERY is for hello and isMaster only")
        if not session.allowed and name not in _OPEN:
            raise CommandError(13, "Unauthorized", f"command {command.name[:60]} requires authentication")
        if "txnNumber" in command.body or command.body.get("autocommit") is False:
            raise CommandError(20, "IllegalOperation", "transactions are not offered; use retryWrites=false")
        handler = self._known.get(name)
        if handler is not None:
            return await handler(command, session)
        if remedy := answers.REFUSED.get(name):
            raise Unsupported(f"{command.name[:60]}: {remedy}")
        raise CommandError(59, "CommandNotFound", f"no such command: '{command.name[:60]}'")

    def _ours(self, command: Command) -> bool:
        return command.database == self._database and command.body[command.name] == COLLECTION

    # The connection ------------------------------------------------------------------------------------------------

    async def _ok(self, command: Command, session: Session) -> Answer:
        return {"ok": 1.0}

    async def _hello(self, command: Command, session: Session) -> Answer:
        self._greeted += 1
        answer = answers.greeting(self._greeted)
        if "saslSupportedMechs" in command.body:
            answer["saslSupportedMechs"] = ["SCRAM-SHA-256"]
        speculative = command.body.get("speculativeAuthenticate")
        if isinstance(speculative, dict) and "saslStart" in speculative:
            # Refused here, the client starts anew and is told then.
            with contextlib.suppress(AuthenticationFailed):
                answer["speculativeAuthenticate"] = session.start(speculative)
        return answer

    async def _build_info(self, command: Command, session: Session) -> Answer:
        return answers.build_info()

    async def _sasl(self, command: Command, session: Session) -> Answer:
        return session.start(command.body) if command.name.lower() == "saslstart" else session.go_on(command.body)

    async def _logout(self, command: Command, session: Session) -> Answer:
        session.end()
        return {"ok": 1.0}

    async def _connection_status(self, command: Command, session: Session) -> Answer:
        users = [{"user": session.user, "db": "admin"}] if session.user else []
        return {"authInfo": {"authenticatedUsers": users, "authenticatedUserRoles": []}, "ok": 1.0}

    # Reading -------------------------------------------------------------------------------------------------------

    async def _find(self, command: Command, session: Session) -> Answer:
        if not self._ours(command):
            return self._queries.nothing(f"{command.database}.{command.body[command.name]}")
        return await self._queries.find(command.body)

    async def _get_more(self, command: Command, session: Session) -> Answer:
        return await self._queries.get_more(command.body)

    async def _kill_cursors(self, command: Command, session: Session) -> Answer:
        identities = command.body.get("cursors")
        if not isinstance(identities, list):
            raise CommandError(14, "TypeMismatch", "cursors is a list")
        killed = [one for one in identities if isinstance(one, int) and self._queries.forget(one)]
        unknown = [one for one in identities if one not in killed]
        others: dict[str, Any] = {"cursorsAlive": [], "cursorsUnknown": []}
        return {"cursorsKilled": killed, "cursorsNotFound": unknown, **others, "ok": 1.0}

    async def _count(self, command: Command, session: Session) -> Answer:
        query = command.body.get("query", {})
        n = await self._queries.count(query) if self._ours(command) else 0
        n = max(0, n - whole_number(command.body, "skip"))
        limit = abs(whole_number(command.body, "limit"))
        return {"n": min(n, limit) if limit else n, "ok": 1.0}

    async def _aggregate(self, command: Command, session: Session) -> Answer:
        stages = command.body.get("pipeline")
        if not isinstance(stages, list) or not all(isinstance(stage, dict) and len(stage) == 1 for stage in stages):
            raise CommandError(14, "TypeMismatch", "pipeline is a list of stages")
        space = f"{command.database}.{command.body[command.name]}"
        if not self._ours(command):
            if stages and "$changeStream" in stages[0]:
                raise Unsupported("a change stream of anything but the subscribers")
            return self._queries.nothing(space)
        if stages and "$changeStream" in stages[0]:
            if len(stages) > 1:
                raise Unsupported("stages after $changeStream")
            return await self._queries.watch(stages[0]["$changeStream"])
        names = [next(iter(stage)) for stage in stages]
        # What clients send for count_documents: $match and a $group that counts.
        group = stages[-1].get("$group") if stages else None
        if names not in (["$match", "$group"], ["$group"]) or group != {"_id": 1, "n": {"$sum": 1}}:
            raise Unsupported("an aggregation other than a count")
        n = await self._queries.count(stages[0]["$match"] if len(stages) == 2 else {})
        return self._queries.listed(space, [bson.encode({"_id": 1, "n": n})] if n else [])

    # Writing -------------------------------------------------------------------------------------------------------

    async def _update(self, command: Command, session: Session) -> Answer:
        if not self._ours(command):
            raise Unsupported("writing to another collection")
        updates = command.body.get("updates")
        if not isinstance(updates, list) or not 0 < len(updates) <= MOST_DOCUMENTS:
            raise CommandError(9, "FailedToParse", f"updates is a list of 1 to {MOST_DOCUMENTS} updates")
        return await self._writes.update(updates, bool(command.body.get("ordered", True)))

    # What there is -------------------------------------------------------------------------------------------------

    async def _create_indexes(self, command: Command, session: Session) -> Answer:
        n = len(answers.indexes())
        return {"numIndexesBefore": n, "numIndexesAfter": n, "note": "the indexes are fixed", "ok": 1.0}

    async def _list_indexes(self, command: Command, session: Session) -> Answer:
        found = [bson.encode(one) for one in answers.indexes()] if self._ours(command) else []
        return self._queries.listed(f"{command.database}.{command.body[command.name]}", found)

    async def _list_collections(self, command: Command, session: Session) -> Answer:
        found = []
        if command.database == self._database:
            collection = {"name": COLLECTION, "type": "collection", "options": {}, "info": {"readOnly": False}}
            found = [bson.encode(collection)]
        return self._queries.listed(f"{command.database}.$cmd.listCollections", found)

    async def _list_databases(self, command: Command, session: Session) -> Answer:
        return {"databases": [{"name": self._database, "sizeOnDisk": 0, "empty": False}], "totalSize": 0, "ok": 1.0}
