#!/usr/bin/python3
"""An HTTP/2 server in clear (prior knowledge) that misbehaves as its second argument says.

usage: h2_peer.py PORT HOW

Answers "requests" on a GET of /count with the number of other requests seen so far.
"""
import socket
import sys
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events

lock = threading.Lock()
count = 0


def answer(conn, stream, status, body=b""):
    conn.send_headers(stream, [(":status", status), ("server", "h2-peer")], end_stream=not body)
    if body:
        conn.send_data(stream, body, end_stream=True)


def goaway(conn, stream):
    conn.close_connection(error_code=0, last_stream_id=max(0, stream - 2))


def behave(how, conn, stream):
    """False: close the connection."""
    if how == "refuse":
        conn.reset_stream(stream, error_code=h2.errors.ErrorCodes.REFUSED_STREAM)
    elif how == "reset":
        conn.reset_stream(stream, error_code=h2.errors.ErrorCodes.INTERNAL_ERROR)
    elif how == "need-h1":
        conn.reset_stream(stream, error_code=h2.errors.ErrorCodes.HTTP_1_1_REQUIRED)
    elif how == "goaway":
        goaway(conn, stream)
        return False
    elif how == "close":
        return False
    elif how == "half":
        conn.send_headers(stream, [(":status", "200"), ("content-length", "9")])
        conn.send_data(stream, b"half")
        return False
    elif how == "silent":
        pass
    elif how == "early":
        answer(conn, stream, "413")
        conn.reset_stream(stream, error_code=0)
    else:
        answer(conn, stream, "204")
    return True


def serve(sock, how):
    global count
    conn = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=False))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    paths = {}
    keep = True
    while keep:
        data = sock.recv(65536)
        if not data:
            break
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                paths[event.stream_id] = dict(event.headers)[b":path"]
                if how == "early" and paths[event.stream_id] not in (b"/count", b"/good"):
                    with lock:
                        count += 1
                    behave(how, conn, event.stream_id)
            elif isinstance(event, h2.events.DataReceived):
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if not isinstance(event, h2.events.StreamEnded):
                continue
            path = paths[event.stream_id]
            if path == b"/count":
                answer(conn, event.stream_id, "200", str(count).encode())
            elif path == b"/good":
                answer(conn, event.stream_id, "204")
            elif how != "early":
                with lock:
                    count += 1
                keep = behave(how, conn, event.stream_id) and keep
        sock.sendall(conn.data_to_send())
    sock.close()


def main():
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        sock, _ = server.accept()
        threading.Thread(target=guarded, args=(sock, sys.argv[2]), daemon=True).start()


def guarded(sock, how):
    try:
        serve(sock, how)
    except Exception:  # the client went away in the middle
        sock.close()


main()
