#!/usr/bin/env python3
"""Reads a query's rows one by one, in libpq's single-row mode, as drivers without a cursor do.

single_rows.py CONNECTION QUERY: prints how many rows came, and in how many pieces they arrived from the server. Standard
library and libpq only.
"""
import ctypes
import select
import sys

SINGLE_TUPLE = 9
TUPLES_OK = 2

libpq = ctypes.CDLL("libpq.so.5")
for function in ("PQconnectdb", "PQgetResult"):
    getattr(libpq, function).restype = ctypes.c_void_p
libpq.PQerrorMessage.restype = ctypes.c_char_p


def check(connection, good):
    if not good:
        sys.exit(libpq.PQerrorMessage(connection).decode())


def wait(connection):
    select.select([libpq.PQsocket(connection)], [], [])
    check(connection, libpq.PQconsumeInput(connection))


def read(connection):
    rows, arrivals = 0, 0
    fresh = False
    while True:
        while libpq.PQisBusy(connection):
            wait(connection)
            fresh = True
        result = libpq.PQgetResult(connection)
        if not result:
            return rows, arrivals
        result = ctypes.c_void_p(result)
        status = libpq.PQresultStatus(result)
        check(connection, status in (SINGLE_TUPLE, TUPLES_OK))
        if status == SINGLE_TUPLE:
            rows += 1
            arrivals += fresh
            fresh = False
        libpq.PQclear(result)


def main():
    connection = ctypes.c_void_p(libpq.PQconnectdb(sys.argv[1].encode()))
    check(connection, libpq.PQstatus(connection) == 0)
    check(connection, libpq.PQsendQuery(connection, sys.argv[2].encode()))
    check(connection, libpq.PQsetSingleRowMode(connection))
    print(*read(connection))
    libpq.PQfinish(connection)


main()
