"""A chat endpoint that misbehaves, over real HTTP, in a process of its own.

The first part of the path says how: `http://127.0.0.1:PORT/<fault>/v1`. `mix` answers 70% of the
requests and spoils the others. `GET /counts` tells how many requests each path has had, `GET /last`
what the last one asked. Prints its port, and that of a second server, to which it redirects and
where nothing must ever arrive.
"""

import asyncio
import contextlib
import json
from collections import Counter

BAD = ("429", "500", "hang", "cut", "bad_json", "html", "null", "huge", "latin1", "redirect", "400")
counts: Counter[str] = Counter()
tries: Counter[str] = Counter()
last: dict = {}
"""The body of the last request."""
elsewhere = 0


def completion(text: str | None) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps({**body, "usage": usage}).encode()


def reply(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def error(status: int, *headers: str) -> bytes:
    return reply(status, json.dumps({"error": {"message": f"no: {status}"}}).encode(), *headers)


def behave(fault: str, query: str, authorization: str) -> bytes | None:
    """The whole response; None is none, ever."""
    number = tries[fault, query]
    match fault:
        case "ok":
            return reply(200, completion(f"reply to {query}"))
        case "echo":
            return reply(200, completion(f"your key is {authorization}"))
        case "echo_error":
            body = json.dumps({"error": {"message": f"wrong key {authorization}"}}).encode()
            return reply(401, body)
        case "flaky":  # every query fails twice before it is answered
            return reply(200, completion("at last")) if number > 2 else error(500)
        case "wait":  # asks to wait once
            return reply(200, completion("ok")) if number > 1 else error(429, "Retry-After: 1")
        case "429":
            return error(429, "Retry-After: 0.05")
        case "500" | "400" | "401":
            return error(int(fault))
        case "hang":
            return None
        case "cut":
            return reply(200, completion("x" * 500))[:-200]
        case "reset":
            return b""
        case "bad_json":
            return reply(200, b'{"choices": [{"message"')
        case "html":
            return reply(200, b"<html>Welcome</html>", kind="text/html")
        case "null":
            return reply(200, b"null")
        case "huge":
            return reply(200, completion("y" * 10_000_000))
        case "latin1":
            return reply(200, completion("x").replace(b'"x"', b'"\xe9\xff\xfe"'))
        case "redirect":
            return reply(302, b"", f"Location: http://127.0.0.1:{elsewhere}/v1/chat/completions")
        case "given":  # sends what it is asked
            stream = query.startswith("data:")
            kind = "text/event-stream" if stream else "application/json"
            return reply(200, query.encode(), kind=kind)
        case "empty":
            return reply(200, completion(""))
        case "no_tools":
            if "tools" not in last:
                return reply(200, completion("Answer: 19"))
            return reply(400, b'{"error": {"message": "gemma does not support tools"}}')
    raise ValueError(fault)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            request, *lines = head.decode("latin1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = request.split()[1]
            if path in ("/counts", "/last"):
                known = counts if path == "/counts" else last
                writer.write(reply(200, json.dumps(known).encode()))
                continue
            fault = path.split("/")[1]
            if path.endswith("/models"):  # few of the services that misbehave list them
                writer.write(error(401 if fault in ("401", "echo_error") else 404))
                continue
            last.clear()
            last.update(json.loads(body))
            query = last["messages"][-1]["content"]
            counts[fault] += 1
            if fault == "mix":
                at = counts["mix"] * 7919 % 1000
                fault = "ok" if at < 700 else BAD[at % len(BAD)]
                counts[f"mix/{fault}"] += 1
            tries[fault, query] += 1
            response = behave(fault, query, headers.get("authorization", ""))
            if response is None:
                await reader.read()  # until the client has had enough
                break
            writer.write(response)
            await writer.drain()
            if fault in ("cut", "reset"):
                break
    writer.close()


async def count_elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    counts["elsewhere"] += 1
    writer.close()


async def main() -> None:
    global elsewhere
    other = await asyncio.start_server(count_elsewhere, "127.0.0.1", 0)
    elsewhere = other.sockets[0].getsockname()[1]
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2000)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server, other:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
