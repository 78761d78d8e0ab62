"""Messages of a peer look alike: the same AVPs of the same lengths follow each other, and only values differ. Where the AVPs
of such a message stand is found once; the next ones are recognised by their AVPs' headers, all in one comparison."""

from __future__ import annotations

from collections import deque

from mvnobox.diameter import codec
from mvnobox.diameter.codec import HEADER_LENGTH, Found

# Shapes that are kept of a peer: each of its kinds of requests has one a length of the Session-Id. Of larger messages none.
KEPT = 64
LARGEST = 4096
# So many messages of a known shape, or so many of others, pay for learning one more.
PRICE = 4
PRICE_UNKNOWN = 64
Sorted = tuple[dict[int, Found], list[Found]]
_Key = tuple[int, bytes]


class Shape:
    """Where the AVPs of a message stand, as far as it was read."""

    __slots__ = ("groups", "headers", "mask", "sorted")

    def __init__(self) -> None:
        # The AVPs of each group that was opened, and of the message, by where they begin.
        self.groups: dict[int, list[Found]] = {}
        self.sorted: Sorted | None = None
        """What the reader made of the message's own AVPs, as long as that says nothing of their values."""
        # The message as a number: which of its bits are AVPs' headers, and what these are.
        self.mask = self.headers = 0

    def close(self, data: bytes) -> None:
        """Nothing more is read of the message."""
        mask = bytearray(len(data))
        for group in self.groups.values():
            for _, _, start, value, _ in group:
                mask[start:value] = b"\xff" * (value - start)
        self.mask = int.from_bytes(mask)
        self.headers = int.from_bytes(data) & self.mask


class Message:
    """The octets of one message from its header on, to be read by its AVPs."""

    __slots__ = ("data", "shape")

    def __init__(self, data: bytes, shape: Shape | None = None) -> None:
        self.data, self.shape = data, shape or Shape()

    def avps(self) -> list[Found]:
        """Its AVPs, groups not opened. Raises DiameterError 5014."""
        return self._between(HEADER_LENGTH, len(self.data))

    def members(self, avp: Found) -> list[Found]:
        """The AVPs in a group. Raises DiameterError 5014."""
        return self._between(avp[3], avp[4])

    def _between(self, start: int, end: int) -> list[Found]:
        # Headers begin and end where the ones before say: the start and the shape are enough.
        shape = self.shape
        found = shape.groups.get(start)
        if found is None:
            found = codec.split(self.data, start, end)
            if not shape.mask:  # a shape that others have holds what is the same in all of them
                shape.groups[start] = found
        return found


class Shapes:
    """The shapes of one peer's messages."""

    def __init__(self) -> None:
        self._known: dict[_Key, list[Shape]] = {}
        self._order: deque[_Key] = deque()
        self._credit = float(KEPT)

    def __len__(self) -> int:
        return len(self._order)

    def message(self, data: bytes) -> Message:
        """A message to read, with what is known of its shape."""
        known = self._known.get(_key(data))
        if known is not None:
            number = int.from_bytes(data)
            for shape in known:
                if number & shape.mask == shape.headers:
                    self._credit = min(self._credit + 1 / PRICE, KEPT)
                    return Message(data, shape)
        self._credit = min(self._credit + 1 / PRICE_UNKNOWN, KEPT)
        return Message(data)

    def learn(self, message: Message) -> None:
        """A message was read whole and is in order: the next ones of its shape are known."""
        shape, data = message.shape, message.data
        if shape.mask or self._credit < 1 or len(data) > LARGEST:
            return
        self._credit -= 1
        if len(self._order) == KEPT:
            # The oldest one; it is learned again if its messages still come.
            key = self._order.popleft()
            shapes = self._known[key]
            del shapes[0]
            if not shapes:
                del self._known[key]
        shape.close(data)
        key = _key(data)
        self._known.setdefault(key, []).append(shape)
        self._order.append(key)


def _key(data: bytes) -> _Key:
    """A length, and the header of the first AVP, which is the Session-Id."""
    return len(data), data[HEADER_LENGTH : HEADER_LENGTH + 8]
