// BullMQ, on Redis (the socket REDIS_SOCKET) or, in mode "postgres", on its own
// PostgreSQL backend.
import { Queue, Worker, createPostgresBackend } from 'bullmq'
import { countdown, database, main, portions, run, timed } from './common.mjs'

const onPostgres = run.mode === 'postgres'
const connection = onPostgres
	? { ...database, max: run.connections, migrate: true }
	: { path: process.env.REDIS_SOCKET, maxRetriesPerRequest: null }
const backend = onPostgres ? [createPostgresBackend] : []
const concurrency = onPostgres ? run.connections : 100
const queue = new Queue('bench', { connection }, ...backend)

async function fill() {
	for (const payloads of portions()) {
		await queue.addBulk(payloads.map((data) => ({ name: 'bench', data })))
	}
	await queue.close()
}

async function drain() {
	const { count, finished } = countdown()
	const options = { connection, concurrency, autorun: false }
	const worker = new Worker('bench', async () => {}, options, ...backend)
	worker.on('completed', count)
	worker.on('error', console.error)
	await worker.waitUntilReady()
	const seconds = await timed(async () => {
		worker.run()
		await finished
	})
	await worker.close()
	return seconds
}

async function left() {
	const completed = await queue.getCompletedCount()
	await queue.close()
	return run.jobs - completed
}

await main({ fill, drain, left })
