"""The MongoDB that follows: found documents, operations carried out, the indexes that Open5GS does not make."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pymongo
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError

from mvnobox.core.directory.answers import COLLECTION
from mvnobox.core.directory.mirror.plan import CANCEL, FIELD, Document, Write
from mvnobox.service.settings import refuse

log = logging.getLogger(__name__)
SELECTION_SECONDS = 5.0
COMMAND_SECONDS = 15.0
# An index over many documents takes its time.
INDEX_SECONDS = 300.0
# FerretDB 1 keeps a connection of its own for each update of a command, and has 50: with more it answers never.
_UPDATES_AT_ONCE = 40
_OTHERS_AT_ONCE = 1000
_DUPLICATE = 11000
# The path is the database; a password that is quoted has none of the delimiters.
_URI = re.compile(r"mongodb(\+srv)?://(?:[^@/]*@)?(?P<hosts>[^@/?]+)/(?P<database>[^/?.$\s]+)(?:\?.*)?", re.DOTALL)
# What follows from a server without change streams.
NO_STREAMS = "is no replica set: a 4G device that is attached stays so when it is suspended, until its quota ends"
# What a failed call of pymongo raises; TimeoutError is the deadline around several of them.
AWAY = (PyMongoError, TimeoutError)


def cause_of(error: BaseException) -> str:
    """An error in words without hosts, values or credentials."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


class Target:
    """One database of a MongoDB. Raises PyMongoError where it is away or refuses as a whole."""

    def __init__(self, uri: str, owner: str) -> None:
        """Connects later. Ends the process where the URI cannot be used; says nothing of what is in it.

        `owner`: the directory whose documents are looked for (`owner_of`).
        """
        match = _URI.fullmatch(uri)
        if match is None:
            refuse("the environment variable DIRECTORY_MIRROR is no mongodb://…/DATABASE or mongodb+srv://…/DATABASE")
        self.owner = owner
        # Whether an IMSI can have one document only.
        self.unique = True
        hosts = ",".join(sorted(match["hosts"].lower().split(",")))
        self.digest = hashlib.sha256(f"{hosts}/{match['database']}".encode()).hexdigest()[:32]
        try:
            self._client: AsyncMongoClient[Document] = AsyncMongoClient(
                uri,
                serverSelectionTimeoutMS=int(1000 * SELECTION_SECONDS),
                appname="mvno-directory",
                # What else is in the collection must not matter.
                unicode_decode_error_handler="replace",
                datetime_conversion="DATETIME_AUTO",
            )
        except (PyMongoError, OSError, ValueError) as error:
            refuse(f"the environment variable DIRECTORY_MIRROR: its hosts or its options ({type(error).__name__})")
        self._subscribers: AsyncCollection[Document] = self._client[match["database"]].get_collection(
            COLLECTION, write_concern=WriteConcern("majority"), read_preference=ReadPreference.PRIMARY
        )

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()

    async def ping(self) -> None:
        """Whether it answers."""
        with pymongo.timeout(COMMAND_SECONDS):
            await self._client.admin.command("ping")

    async def prepare(self) -> None:
        """Make the indexes. One that cannot be made is said and done without: the directory keeps both unique."""
        for name, sparse in (("imsi", False), ("msisdn", True)):
            try:
                with pymongo.timeout(INDEX_SECONDS):
                    await self._subscribers.create_index(name, unique=True, sparse=sparse)
            except ConnectionFailure:
                raise
            except OperationFailure as error:
                log.warning("mirror: the unique index on %s was not made: %s", name, cause_of(error))
                self.unique = self.unique and name != "imsi"

    async def has_streams(self) -> bool:
        """Whether it has change streams, by which an HSS learns of a suspension: a member of a replica set, or a mongos.

        MongoDB's hello command says so by `setName` or `msg: isdbgrid`.
        """
        with pymongo.timeout(COMMAND_SECONDS):
            said = await self._client.admin.command("hello")
        return "setName" in said or said.get("msg") == "isdbgrid"

    async def found(self, imsis: Iterable[str]) -> dict[str, Document]:
        """Documents by IMSI."""
        documents: dict[str, Document] = {}
        with pymongo.timeout(COMMAND_SECONDS):
            async for one in self._subscribers.find({"imsi": {"$in": list(imsis)}}, batch_size=1000):
                imsi = one["imsi"]
                # Of several, without the unique index, the directory's own.
                if isinstance(imsi, str) and (imsi not in documents or FIELD in one):
                    documents[imsi] = one
        return documents

    async def highest(self) -> int:
        """The highest number of a claim in the directory's documents; 0: there are none."""
        with pymongo.timeout(INDEX_SECONDS):
            cursor = self._subscribers.find({f"{FIELD}.of": self.owner}, {f"{FIELD}.label": 1})
            async for one in cursor.sort(f"{FIELD}.label", pymongo.DESCENDING).limit(1):
                return int(one[FIELD]["label"])
        return 0

    async def mirrored(self, batch: int = 1000) -> AsyncIterator[list[str]]:
        """IMSIs of all documents that are the directory's own."""
        imsis: list[str] = []
        async for one in self._subscribers.find({f"{FIELD}.of": self.owner}, {"imsi": 1}, batch_size=batch):
            imsis.append(str(one.get("imsi")))
            if len(imsis) == batch:
                yield imsis
                imsis = []
        if imsis:
            yield imsis

    async def count(self) -> tuple[int, int]:
        """(documents, those of them that are the directory's own)."""
        with pymongo.timeout(COMMAND_SECONDS):
            own = await self._subscribers.count_documents({f"{FIELD}.of": self.owner})
            return await self._subscribers.count_documents({}), own

    async def apply(self, writes: Iterable[Write]) -> AsyncIterator[tuple[list[Write], dict[str, int | None]]]:
        """Carry operations out, some at a time: (these, what was not done of them, by IMSI).

        That is the server's code, or None where the document is to be looked at again. Removals come first and
        insertions last, so that a number is free before it is given anew.
        """
        kinds: dict[str, list[Write]] = {"delete": [], "update": [], "insert": []}
        for write in writes:
            kinds[write.kind].append(write)
        for kind, ones in kinds.items():
            size = _UPDATES_AT_ONCE if kind == "update" else _OTHERS_AT_ONCE
            for start in range(0, len(ones), size):
                some = ones[start : start + size]
                undone = await self._bulk(some)
                await self._let_go([one.imsi for one in some if one.swapped and one.imsi not in undone])
                yield some, undone

    async def _bulk(self, writes: list[Write]) -> dict[str, int | None]:
        try:
            with pymongo.timeout(COMMAND_SECONDS):
                result = await self._subscribers.bulk_write([one.operation for one in writes], ordered=False)
        except BulkWriteError as error:
            details: Any = error.details
            if details.get("writeConcernErrors"):
                raise
            failed = {writes[one["index"]].imsi: one["code"] for one in details["writeErrors"]}
            done = details["nMatched"] + details["nRemoved"] + details["nInserted"]
            return failed if done + len(failed) == len(writes) else {one.imsi: failed.get(one.imsi) for one in writes}
        except ConnectionFailure:
            raise
        except OperationFailure as error:
            if error.timeout or not isinstance(error.code, int):
                raise
            if len(writes) == 1:
                return {writes[0].imsi: error.code}
            # Some servers let one operation's fault end all of them.
            undone: dict[str, int | None] = {}
            for one in writes:
                undone |= await self._bulk([one])
            return undone
        if result.matched_count + result.deleted_count + result.inserted_count == len(writes):
            return {}
        # A document is not as it was found: somebody was quicker, or it is gone.
        return {one.imsi: None for one in writes}

    async def _let_go(self, imsis: list[str]) -> None:
        """Take back what had the HSS act, so that it does the next time: only a change is an event."""
        if imsis:
            with pymongo.timeout(COMMAND_SECONDS):
                await self._subscribers.update_many({"imsi": {"$in": imsis}, CANCEL: True}, {"$unset": {CANCEL: ""}})

    async def holders(self, writes: Iterable[Write]) -> dict[str, Any]:
        """Other documents of the directory's own that have numbers which these writes give: `_id` by IMSI."""
        given = {number: write.imsi for write in writes for number in write.numbers}
        holders: dict[str, Any] = {}
        with pymongo.timeout(COMMAND_SECONDS):
            own = {"msisdn": {"$in": list(given)}, f"{FIELD}.of": self.owner}
            async for one in self._subscribers.find(own):
                if any(given.get(number, one["imsi"]) != one["imsi"] for number in one["msisdn"]):
                    holders[one["imsi"]] = one["_id"]
        return holders

    async def take_numbers(self, identities: Iterable[Any]) -> None:
        """Take the numbers of documents, which are then to be looked at again."""
        with pymongo.timeout(COMMAND_SECONDS):
            await self._subscribers.update_many({"_id": {"$in": list(identities)}}, {"$unset": {"msisdn": ""}})


def is_duplicate(code: int | None) -> bool:
    """Whether an operation met a unique index. FerretDB says of an update that it is an internal error (1)."""
    return code in (_DUPLICATE, 1)
