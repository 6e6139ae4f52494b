// graphile-worker.
//   single: its defaults
//   batch:  the batching that its documentation describes for throughput
import { makeWorkerUtils, run as runWorker, Logger } from 'graphile-worker'
import pg from 'pg'
import { countdown, database, main, portions, run, timed } from './common.mjs'

const pgPool = new pg.Pool({ ...database, max: run.connections })
pgPool.on('error', () => {})
const logger = new Logger(() => () => {})

const batching = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }

async function fill() {
	const utils = await makeWorkerUtils({ pgPool, logger })
	await utils.migrate()
	for (const payloads of portions()) {
		await utils.addJobs(payloads.map((payload) => ({ identifier: 'bench', payload })))
	}
	await utils.release()
	await pgPool.end()
}

async function drain() {
	const { count, finished } = countdown()
	let runner
	const seconds = await timed(async () => {
		runner = await runWorker({
			pgPool,
			logger,
			noHandleSignals: true,
			taskList: { bench: async () => count() },
			preset: {
				worker: {
					concurrentJobs: run.connections,
					...(run.mode === 'batch' ? batching : {}),
				},
			},
		})
		await finished
	})
	await runner.stop()
	return seconds
}

async function left() {
	const { rows: [{ count }] } = await pgPool.query('SELECT count(*)::integer FROM graphile_worker.jobs')
	await pgPool.end()
	return count
}

await main({ fill, drain, left })
