// pg-boss.
//   single: fetch and complete, one job at a time on each connection
//   batch:  workers that fetch 100 at a time, and at once again while there are more
import { PgBoss } from 'pg-boss'
import { countdown, database, main, portions, run, timed } from './common.mjs'

const boss = new PgBoss({ ...database, max: run.connections, supervise: false, schedule: false })
boss.on('error', console.error)

async function fill() {
	await boss.start()
	await boss.createQueue('bench')
	for (const payloads of portions()) {
		await boss.insert('bench', payloads.map((data) => ({ data })))
	}
	await boss.stop()
}

async function fetchAndComplete() {
	for (;;) {
		const jobs = await boss.fetch('bench')
		if (!jobs?.length) return
		await boss.complete('bench', jobs[0].id)
	}
}

async function work() {
	const { count, finished } = countdown()
	const options = {
		batchSize: 100,
		localConcurrency: run.connections,
		pollingIntervalSeconds: 0.5,
		burstWhenBatchFull: true,
	}
	await boss.work('bench', options, async (jobs) => { jobs.forEach(count) })
	await finished
}

async function drain() {
	await boss.start()
	return timed(run.mode === 'batch'
		? work
		: () => Promise.all(Array.from({ length: run.connections }, fetchAndComplete)))
}

async function left() {
	await boss.stop()
	await boss.start()
	const { rows: [{ count }] } = await boss.getDb().executeSql(
		"SELECT count(*)::integer FROM pgboss.job WHERE name = 'bench' AND state = 'completed'")
	await boss.stop()
	return run.jobs - count
}

await main({ fill, drain, left })
