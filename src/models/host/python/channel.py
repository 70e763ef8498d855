"""Speaks the frames of `frame.rs` on a child's end of its socket. Runs in the template, for its children."""

import json
import struct


class Channel:
    """A child's end of its socket, which carries a question, its answer, and the next question."""

    def __init__(self, connection):
        self.connection = connection

    def receive(self):
        """Returns the head and the body of the next question; `None` when no more questions will come."""
        prefix = self._read(8)
        if prefix is None:
            return None
        head_length, body_length = struct.unpack(">II", prefix)
        head, body = self._read(head_length), self._read(body_length)
        return None if head is None or body is None else (json.loads(head), body)

    def answer(self, head, body=b""):
        head = json.dumps(head).encode()
        prefix = struct.pack(">II", len(head), len(body))
        if len(body) < 65536:
            self.connection.sendall(prefix + head + body)
        else:
            self.connection.sendall(prefix + head)
            self.connection.sendall(body)

    def _read(self, length):
        piece = self.connection.recv(length) if length else b""
        if len(piece) == length:
            return piece
        buffer, filled = bytearray(length), len(piece)
        buffer[:filled] = piece
        view = memoryview(buffer)
        while piece and filled < length:
            count = self.connection.recv_into(view[filled:])
            if count == 0:
                return None
            filled += count
        return bytes(buffer) if filled == length else None
