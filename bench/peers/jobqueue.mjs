// jobqueue, and the queue in PL/pgSQL, whose functions have the same names. Their
// jobs are filled in by SQL.
//   single: claim_next_job, resolve_job
//   next:   resolve_and_claim
//   batch, batch500: claim_jobs and resolve_jobs of 100, of 500
import { randomUUID } from 'node:crypto'
import { connect, main, onConnections, run } from './common.mjs'

const claim = { name: 'claim', text: "SELECT id FROM claim_next_job($1, 'bench')" }
const resolve = { name: 'resolve', text: 'SELECT resolve_job($1, $2, true)' }
const next = {
	name: 'next',
	text: "SELECT id FROM resolve_and_claim($1, $2, true, NULL, 'bench')",
}
const claimMany = { name: 'claim_many', text: "SELECT id FROM claim_jobs($1, '{bench}', $2)" }
const resolveMany = {
	name: 'resolve_many',
	text: 'SELECT resolve_jobs($1, $2::bigint[], array_fill(true, ARRAY[cardinality($2::bigint[])]))',
}

async function single(client) {
	const worker = randomUUID()
	for (;;) {
		const { rows: [job] } = await client.query({ ...claim, values: [worker] })
		if (!job) return
		await client.query({ ...resolve, values: [job.id, worker] })
	}
}

async function resolveAndClaim(client) {
	const worker = randomUUID()
	let { rows: [job] } = await client.query({ ...claim, values: [worker] })
	while (job) {
		({ rows: [job] } = await client.query({ ...next, values: [job.id, worker] }))
	}
}

async function batches(client, size) {
	const worker = randomUUID()
	for (;;) {
		const { rows } = await client.query({ ...claimMany, values: [worker, size] })
		if (rows.length === 0) return
		await client.query({ ...resolveMany, values: [worker, rows.map((job) => job.id)] })
	}
}

async function left() {
	const client = await connect()
	const { rows: [{ count }] } = await client.query('SELECT count(*)::integer FROM job_runs')
	await client.end()
	return run.jobs - count
}

const ways = {
	single,
	next: resolveAndClaim,
	batch: (client) => batches(client, 100),
	batch500: (client) => batches(client, 500),
}

const drain = () => onConnections(ways[run.mode])

await main({ drain, left })
