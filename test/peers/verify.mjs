// Receives webhooks and verifies their signatures with the implementation of
// standard-webhooks, which knows nothing of ours.
//
//   node verify.mjs MODULES PORT SECRET...
//
// Answers in JSON what it found: for each secret whether the request verifies
// ("ok" or what is wrong), what is said when one byte of its body is changed, and
// when it is an hour old; the headers of the signature, and the body.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';

const [modules, port, ...secrets] = process.argv.slice(2);
const { Webhook } = createRequire(`${modules}/`)('standardwebhooks');

function verify(secret, body, headers) {
	try {
		new Webhook(secret).verify(body, headers, { jsonParse: false });
		return 'ok';
	} catch (error) {
		return error.message;
	}
}

// The body with one byte changed, in the middle.
function tamper(body) {
	const middle = Math.floor(body.length / 2);

	return body.slice(0, middle) + (body[middle] === 'x' ? 'y' : 'x') + body.slice(middle + 1);
}

function judge(body, headers) {
	const earlier = { ...headers, 'webhook-timestamp': String(headers['webhook-timestamp'] - 3600) };

	return {
		verified: secrets.map((secret) => verify(secret, body, headers)),
		tampered: secrets.map((secret) => verify(secret, tamper(body), headers)),
		earlier: secrets.map((secret) => verify(secret, body, earlier)),
		id: headers['webhook-id'],
		timestamp: headers['webhook-timestamp'],
		signature: headers['webhook-signature'],
		idempotency_key: headers['idempotency-key'],
		body,
	};
}

createServer((request, response) => {
	const chunks = [];

	request.on('data', (chunk) => chunks.push(chunk));
	request.on('end', () => {
		response.setHeader('Content-Type', 'application/json');
		response.end(JSON.stringify(judge(Buffer.concat(chunks).toString(), request.headers)));
	});
}).listen(port, '127.0.0.1');
