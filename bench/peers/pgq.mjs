// PgQ: one queue for each connection, one batch of events at a time. The events
// and the ticks between them come from SQL.
import { main, onConnections, run } from './common.mjs'

let events = 0

async function consume(client, index) {
	const queue = `bench_${index}`
	for (;;) {
		const { rows: [{ batch }] } = await client.query({
			name: 'next', text: "SELECT pgq.next_batch($1, 'bench') AS batch", values: [queue],
		})
		if (batch === null) return
		const { rows } = await client.query({
			name: 'events', text: 'SELECT * FROM pgq.get_batch_events($1)', values: [batch],
		})
		events += rows.length
		await client.query({ name: 'finish', text: 'SELECT pgq.finish_batch($1)', values: [batch] })
	}
}

await main({
	drain: () => onConnections(consume),
	left: async () => run.jobs - events,
})
