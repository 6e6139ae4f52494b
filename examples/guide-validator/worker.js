#!/usr/bin/env node
// A worker of guide-validator.sql in JavaScript. It needs Node and pg (npm install,
// beside this file), and the environment below. Its log is lines of JSON.
//
//   DATABASE_URL         of the pooler, with the key: postgresql://key_1:...@pooler:6432/guide
//   WORKER_JOB_TYPES     what it does, as in "ocr,moderation"
//   WORKER_POLL_MS       how long it waits when there was nothing; 2000
//   OCR_API_KEY          of the OCR service
//
//   worker.js            works until SIGTERM or SIGINT, and ends the job that it has
//   worker.js once       works off what is there: for an Edge Function or Cloud Run job
'use strict';

const { randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const { Pool } = require('pg');

const worker = randomUUID();
const jobTypes = (process.env.WORKER_JOB_TYPES || 'ocr,moderation').split(',');
const pollMs = Number(process.env.WORKER_POLL_MS || 2000);
const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 1 });
// A connection that breaks is told to whoever uses it, and to these.
pool.on('error', () => {});
pool.on('connect', (client) => client.on('error', () => {}));

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop.abort());

function log(event, more) {
	console.log(JSON.stringify({ event, worker, ...more }));
}

// Each does what takes long, then says what to write down: a statement with its values.
const handlers = {
	async ocr({ document, url }) {
		const answer = await fetch(url, { headers: { authorization: `Bearer ${process.env.OCR_API_KEY}` } });
		if (!answer.ok) throw new Error(`OCR service: HTTP status ${answer.status}`);
		return ['SELECT guide.save_content($1, $2)', [document, await answer.text()]];
	},

	async moderation({ comment, body }) {
		return ['SELECT guide.save_verdict($1, $2)', [comment, /\b(casino|lottery)\b/i.test(body) ? 'spam' : 'fine']];
	},
};

async function claim(jobType) {
	const { rows } = await pool.query('SELECT * FROM claim_next_job(worker_id => $1, job_type => $2)', [worker, jobType]);
	return rows[0];
}

async function resolve(client, job, success, error) {
	const { rows } = await client.query(
		'SELECT resolve_job(job_id => $1, worker_id => $2, success => $3, error => $4) AS done',
		[job.id, worker, success, error]);
	return rows[0].done;
}

// What the job achieved and its end commit together: if it is no longer ours, because
// we were silent for too long, neither happens, and whoever has it now does it.
async function complete(job, [statement, values]) {
	const client = await pool.connect();
	try {
		await client.query('BEGIN');
		await client.query(statement, values);
		const done = await resolve(client, job, true, null);
		await client.query(done ? 'COMMIT' : 'ROLLBACK');
		return done;
	} catch (error) {
		await client.query('ROLLBACK').catch(() => {});
		throw error;
	} finally {
		client.release();
	}
}

async function work(job) {
	log('start', { job: job.id, type: job.job_type, attempt: job.attempts });
	try {
		const done = await complete(job, await handlers[job.job_type](job.payload));
		log(done ? 'completed' : 'lost', { job: job.id });
	} catch (error) {
		const done = await resolve(pool, job, false, error.message);
		log(done ? 'failed' : 'lost', { job: job.id, error: error.message });
	}
}

// Works off what is there; returns whether there was anything.
async function round() {
	let any = false;
	for (const jobType of jobTypes) {
		const job = stop.signal.aborted ? undefined : await claim(jobType);
		if (job) {
			any = true;
			await work(job);
		}
	}
	return any;
}

async function main() {
	const once = process.argv[2] === 'once';
	while (!stop.signal.aborted) {
		let pause = 0;
		try {
			if (!(await round())) {
				if (once) break;
				pause = pollMs;
			}
		} catch (error) {
			log('loop_error', { error: error.message });
			if (once) throw error;
			pause = pollMs;
		}
		await sleep(pause, null, { signal: stop.signal }).catch(() => {});
	}
	await pool.end();
}

main();
