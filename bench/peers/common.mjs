// What all peers share: arguments, the clock, and connections to PostgreSQL,
// which the PG* variables of the environment name.
//
//   node PEER.mjs fill|drain MODE JOBS CONNECTIONS
//
// "fill" puts JOBS jobs into an empty queue; "drain" does them all and prints
// how many it did per second. MODE chooses among the ways to drain.
import pg from 'pg'

const [action, mode, jobs, connections] = process.argv.slice(2)
export const run = { mode, jobs: Number(jobs), connections: Number(connections) }

export const database = {
	host: process.env.PGHOST,
	user: process.env.PGUSER,
	database: process.env.PGDATABASE,
}

export const payload = (n) => ({ n, to: 'someone@example.com' })

// The payloads of all jobs in portions of a thousand.
export function* portions() {
	for (let first = 1; first <= run.jobs; first += 1000) {
		const count = Math.min(1000, run.jobs - first + 1)
		yield Array.from({ length: count }, (_, i) => payload(first + i))
	}
}

export async function connect() {
	const client = new pg.Client(database)
	await client.connect()
	return client
}

// Runs work(connection, index) on each connection at the same time; returns the
// seconds that it took, without connecting.
export async function onConnections(work) {
	const clients = await Promise.all(Array.from({ length: run.connections }, connect))
	const seconds = await timed(() => Promise.all(clients.map(work)))
	await Promise.all(clients.map((client) => client.end()))
	return seconds
}

export async function timed(work) {
	const start = performance.now()
	await work()
	return (performance.now() - start) / 1000
}

// A counter of jobs done, and a promise that it has reached run.jobs.
export function countdown() {
	let done = 0
	let finish
	const finished = new Promise((resolve) => { finish = resolve })
	return {
		finished,
		count() {
			done += 1
			if (done === run.jobs) finish()
		},
	}
}

// Carries out the action; drain gives the seconds that it took, and left the
// number of jobs that are not done, of which there must be none.
export async function main({ fill, drain, left }) {
	if (action === 'fill') {
		await fill()
		return
	}
	const seconds = await drain()
	const remaining = await left()
	if (remaining !== 0) throw new Error(`${remaining} jobs were not done`)
	console.log(run.jobs / seconds)
}
