"""Messages of a peer look alike: the same AVPs of the same lengths follow each other, and only values differ. Where the AVPs
of such a message stand is found once; the next ones are recognised by their AVPs' headers, all in one comparison."""

from __future__ import annotations

from mvnobox.diameter import codec
from mvnobox.diameter.codec import HEADER_LENGTH, Found

# Shapes that are kept of a peer: each of its kinds of requests has one a length of the Session-Id.
KEPT = 64
# So many messages of a known shape pay for learning another one, should a peer have more than are kept.
PRICE = 4
Sorted = tuple[dict[int, Found], list[Found]]


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
        self._known: dict[tuple[int, bytes], list[Shape]] = {}
        self._kept = 0
        self._credit = float(KEPT)

    def message(self, data: bytes) -> Message:
        """A message to read, with what is known of its shape."""
        known = self._known.get(_key(data))
        if known is not None:
            number = int.from_bytes(data)
            for shape in known:
                if number & shape.mask == shape.headers:
                    self._credit = min(self._credit + 1 / PRICE, KEPT)
                    return Message(data, shape)
        return Message(data)

    def learn(self, message: Message) -> None:
        """A message was read whole and is in order: the next ones of its shape are known."""
        shape = message.shape
        if shape.mask or self._credit < 1:
            return
        shape.close(message.data)
        self._credit -= 1
        self._known.setdefault(_key(message.data), []).append(shape)
        self._kept += 1
        if self._kept > KEPT:
            self._kept -= len(self._known.pop(next(iter(self._known))))


def _key(data: bytes) -> tuple[int, bytes]:
    """A length, and the header of the first AVP, which is the Session-Id."""
    return len(data), data[HEADER_LENGTH : HEADER_LENGTH + 8]
