#!/usr/bin/python3
"""A worker of guide-validator.sql in Python. It needs psycopg2 (Debian's
python3-psycopg2) and the environment below. Its log is lines of JSON.

  DATABASE_URL         of the pooler, with the key: postgresql://key_1:...@pooler:6432/guide
  WORKER_JOB_TYPES     what it does, as in "ocr,license-renewal"
  WORKER_POLL_MS       how long it waits when there was nothing; 2000
  OCR_API_KEY          of the OCR service

  worker.py            works until SIGTERM or SIGINT, and ends the job that it has
  worker.py once       works off what is there: for an Edge Function or Cloud Run job
"""

import json
import os
import signal
import sys
import threading
import urllib.request
import uuid

import psycopg2
import psycopg2.extras

WORKER = str(uuid.uuid4())
JOB_TYPES = os.environ.get('WORKER_JOB_TYPES', 'ocr,license-renewal').split(',')
POLL_S = int(os.environ.get('WORKER_POLL_MS', 2000)) / 1000
ONCE = sys.argv[1:] == ['once']
stop = threading.Event()


def log(event, **more):
    print(json.dumps({'event': event, 'worker': WORKER, **more}), flush=True)


# Each does what takes long, then says what to write down: a statement with its values.

def ocr(payload):
    request = urllib.request.Request(payload['url'], headers={
        'Authorization': 'Bearer ' + os.environ.get('OCR_API_KEY', '')})
    with urllib.request.urlopen(request, timeout=100) as answer:
        return 'SELECT guide.save_content(%s, %s)', (payload['document'], answer.read().decode())


def license_renewal(payload):
    return 'SELECT guide.renew_licenses(%s)', (payload['days_ahead'],)


HANDLERS = {'ocr': ocr, 'license-renewal': license_renewal}


def claim(cursor, job_type):
    cursor.execute('SELECT * FROM claim_next_job(%s, %s)', (WORKER, job_type))
    return cursor.fetchone()


def resolve(cursor, job, success, error):
    cursor.execute('SELECT resolve_job(%s, %s, %s, %s) AS done', (job['id'], WORKER, success, error))
    return cursor.fetchone()['done']


def complete(connection, job, statement, values):
    """What the job achieved and its end commit together: if it is no longer ours,
    because we were silent for too long, neither happens, and whoever has it now
    does it."""
    with connection.cursor() as cursor:
        try:
            cursor.execute('BEGIN')
            cursor.execute(statement, values)
            done = resolve(cursor, job, True, None)
            cursor.execute('COMMIT' if done else 'ROLLBACK')
            return done
        except psycopg2.Error:
            if not connection.closed:
                cursor.execute('ROLLBACK')
            raise


def work(connection, job):
    log('start', job=job['id'], type=job['job_type'], attempt=job['attempts'])
    try:
        statement, values = HANDLERS[job['job_type']](job['payload'])
        done = complete(connection, job, statement, values)
        log('completed' if done else 'lost', job=job['id'])
    except Exception as error:
        if connection.closed:
            raise
        with connection.cursor() as cursor:
            done = resolve(cursor, job, False, str(error))
        log('failed' if done else 'lost', job=job['id'], error=str(error))


def work_off(connection):
    """Works off what is there; returns whether there was anything."""
    any_job = False
    for job_type in JOB_TYPES:
        with connection.cursor() as cursor:
            job = None if stop.is_set() else claim(cursor, job_type)
        if job:
            any_job = True
            work(connection, job)
    return any_job


def main():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    connection = None
    while not stop.is_set():
        try:
            if connection is None or connection.closed:
                connection = psycopg2.connect(os.environ['DATABASE_URL'], cursor_factory=psycopg2.extras.RealDictCursor)
                connection.autocommit = True
            if work_off(connection):
                continue
            if ONCE:
                break
        except psycopg2.Error as error:
            log('loop_error', error=str(error))
            if ONCE:
                raise
        stop.wait(POLL_S)


main()
