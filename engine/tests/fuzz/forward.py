"""The engine's socket on a port of the loopback, for a client that knows no Unix sockets.

    forward.py SOCKET PORT-FILE
"""

import asyncio
import os
import sys


async def pipe(reader, writer):
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (ConnectionError, OSError):
        writer.close()


async def client(reader, writer):
    engine_reader, engine_writer = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(pipe(reader, engine_writer), pipe(engine_reader, writer))
    engine_writer.close()
    writer.close()


async def main():
    server = await asyncio.start_server(client, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with open(sys.argv[2] + ".new", "w") as file:
        file.write(str(port))
    os.rename(sys.argv[2] + ".new", sys.argv[2])
    await server.serve_forever()


asyncio.run(main())
