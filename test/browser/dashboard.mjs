// Walks through the dashboard with a real browser, as the arguments say, and
// prints a line "ok NAME" or "not ok NAME" for each thing that it looks at.
//
//   node dashboard.mjs LIBRARIES URL-OF-OPERATOR URL-OF-OBSERVER TOKEN [SCREENSHOTS]
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';

const [libraries, operator, observer, token, screenshots] = process.argv.slice(2);
const require = createRequire(libraries + '/');
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const browser = await chromium.launch({ executablePath: process.env.JOBQUEUE_TEST_CHROMIUM || '/usr/bin/chromium',
	args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
		'--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'], env: { ...process.env, HOME: tmpdir() } });
const PAGES = ['overview', 'overview?range=7d', 'types', 'type?name=mail', 'jobs?status=scheduled', 'jobs?status=ready&job_type=mail',
	'dead-letters?job_type=mail', 'job?id=1', 'cron', 'cron-task?name=nightly', 'workers', 'endpoints', 'alerts', 'health', 'actions'];
// Where light has been looked at, dark and phone are enough on these.
const DENSE = ['overview', 'types', 'dead-letters?job_type=mail', 'job?id=1', 'cron', 'health'];
const complaints = [];
let where = 'start';

function told(good, name, detail)
{
	console.log(`${good ? 'ok' : 'not ok'} ${name}`);
	if (!good && detail !== undefined)
		console.log('# ' + String(detail).replace(/\n/g, '\n# '));
}

async function check(name, code)
{
	where = name;
	try
	{
		const detail = await code();
		told(detail === undefined || detail === true || detail === '', name, detail);
	}
	catch (error)
	{
		told(false, name, error.stack);
	}
}

// What a page says in the console is a fault, but for requests that a test
// wants to fail.
async function open(options, base, hash)
{
	const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
	const page = await context.newPage();

	page.setDefaultTimeout(10000);
	page.on('console', m => m.type() !== 'info' && !/Failed to load resource/.test(m.text()) && complaints.push(`${where}: ${m.type()} ${m.text()}`));
	page.on('pageerror', e => complaints.push(`${where}: ${e.stack}`));
	page.on('request', r => new URL(r.url()).origin === new URL(base).origin || r.url().startsWith('data:') || complaints.push(`${where}: asked for ${r.url()}`));
	await page.goto(base + '#/' + (hash || 'overview'));
	await loaded(page);
	return page;
}

const loaded = page => page.waitForFunction(() => document.querySelector('#age').textContent.includes('data') && state.data && !state.busy);

async function go(page, hash)
{
	await page.evaluate(h => { location.hash = '#/' + h; }, hash);
	await page.waitForFunction(h => location.hash === '#/' + h, hash);
	await loaded(page);
}

async function violations(page, rules)
{
	await page.evaluate(axe);
	const found = await page.evaluate(r => axe.run(document, { resultTypes: ['violations'], iframes: false, runOnly: r || ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }), rules);
	return found.violations.map(v => `${v.id}: ${v.help}\n` + v.nodes.slice(0, 4).map(n => '  ' + n.target + ' ' + n.failureSummary).join('\n')).join('\n');
}

const wide = page => page.evaluate(() => document.documentElement.scrollWidth > innerWidth ? `${document.documentElement.scrollWidth} wide` : '');
const text = page => page.innerText('main');
const unlock = page => page.evaluate(t => { sessionStorage.setItem('jobqueue-token', t); token = t; showFrame(); }, token);

// Confirms what a dialog asks, with these values in its fields.
async function confirm(page, values)
{
	await page.waitForSelector('dialog[open]');
	for (const [name, value] of Object.entries(values || {}))
		await page.fill(`dialog input[name=${name}]`, value);
	await page.click('dialog [type=submit]');
}

const lastMessage = async page =>
{
	await page.waitForSelector('.message');
	const said = await page.innerText('.message:last-child');
	await page.evaluate(() => document.querySelector('#messages').replaceChildren());
	return said;
};
const is = (got, expected) => expected.test(got) ? '' : `got "${got}", expected ${expected}`;

// ---- every page, as one looks at it ----

const looks = { light: { colorScheme: 'light' }, dark: { colorScheme: 'dark' }, phone: { viewport: { width: 375, height: 740 }, isMobile: true, hasTouch: true } };
await Promise.all(Object.entries(looks).map(async ([look, options]) =>
{
	const page = await open(options, operator);

	await unlock(page);
	await check(`no accessibility violation, ${look}`, async () =>
	{
		const all = [];

		for (const hash of look === 'dark' && !screenshots ? DENSE : PAGES)
		{
			await go(page, hash);
			if (hash === 'alerts' && /no such thing/.test(await text(page)))
				continue;
			const found = [look === 'light' || DENSE.includes(hash) ? await violations(page, look === 'dark' ? ['color-contrast'] : null) : '', await wide(page),
				/undefined|NaN|\[object/.test(await text(page)) && 'odd text: ' + (await text(page)).match(/.*(undefined|NaN|\[object).*/)[0],
				(await page.$('main .notice.fail')) && await page.innerText('main .notice.fail')].filter(Boolean);

			if (found.length)
				all.push(hash + ': ' + found.join('\n'));
			if (screenshots)
				await page.screenshot({ path: `${screenshots}/${hash.replace(/\W+/g, '_')}-${look}.png` });
		}
		return all.join('\n');
	});
	if (look === 'phone')
		await check('the menu of a phone opens and closes', async () =>
		{
			await page.click('#menu');
			await page.click('nav a:has-text("Cron")');
			await page.waitForFunction(() => location.hash === '#/cron');
			return await page.isVisible('nav') ? 'it is still open' : '';
		});
	await page.context().close();
}));

// ---- the token ----

let page = await open({}, operator, 'types');
const dialogOpen = () => page.waitForSelector('dialog[open] input[name=token]');

await check('without the token nothing is done', async () =>
{
	await page.click('button[aria-label="Pause: mail"]');
	await confirm(page);
	await dialogOpen();
	await page.keyboard.press('Escape');
	await page.waitForSelector('dialog', { state: 'detached' });
	await go(page, 'actions');
	return /Pause job types/.test(await text(page)) ? 'it was done' : '';
});
await check('a wrong token is said, and asked for again', async () =>
{
	await go(page, 'types');
	await page.click('button[aria-label="Pause: mail"]');
	await confirm(page, { reason: 'a reason to read' });
	await dialogOpen();
	await confirm(page, { token: 'wrong' });
	await page.waitForSelector('dialog[open] p:has-text("not the right one")');
	await confirm(page, { token });
	return is(await lastMessage(page), /1 paused/);
});
await check('the token stays in the session and out of addresses', async () =>
	await page.evaluate(t => sessionStorage.getItem('jobqueue-token') === t && !location.href.includes(t) && Object.keys(localStorage).length === 0, token) ? '' : 'it does not');
await check('what was done can be seen, and by whom', async () =>
{
	await go(page, 'actions');
	return is(await text(page), /Pause job types[\s\S]*mail; reason: a reason to read[\s\S]*monitor_operator[\s\S]*127\.0\.0\.1[\s\S]*done/);
});

// ---- actions: one, many, all of a filter ----

const select = async names => { for (const name of names) await page.check(`input[aria-label="Select ${name}"]`); };
// [page, what is selected, button, values, what is said]
const ACTIONS = [
	['types', null, 'button[aria-label="Resume: mail"]', {}, /1 resumed/],
	['types', ['mail', 'push'], '.bulk button:has-text("Pause")', {}, /2 paused/],
	['types', ['mail', 'push'], '.bulk button:has-text("Resume")', {}, /2 resumed/],
	['types', ['mail', 'push'], '.bulk button:has-text("Throttle")', { delay: '5 minutes' }, /2 throttled/],
	['types', ['mail', 'push'], '.bulk button:has-text("Limits")', { max_concurrency: '3', rate_max: '10', rate_window: '1 minute' }, /2 changed/],
	['types', ['mail'], '.bulk button:has-text("Limits")', { rate_max: 'many' }, /invalid input syntax/],
	['types', ['mail', 'push'], '.bulk button:has-text("Open circuits")', { duration: '5 minutes', reason: 'maintenance' }, /2 opened/],
	['types', ['mail'], '.bulk button:has-text("Close circuits")', {}, /1 closed/],
	['type?name=push', null, '#main button:has-text("Close")', {}, /1 closed/],
	['type?name=push', null, '#main button:has-text("End it")', {}, /1 throttled/],
	['jobs?status=scheduled', ['job #5', 'job #6'], '.bulk button:has-text("Run now")', {}, /2 made due/],
	['jobs?status=scheduled', ['job #7', 'job #8'], '.bulk button:has-text("Cancel")', { reason: 'not wanted' }, /2 cancelled/],
	['job?id=9', null, '#main button:has-text("Cancel")', {}, /1 cancelled/],
	['job?id=9', null, '#main button:has-text("Queue again")', {}, /1 queued again/],
	['dead-letters', null, 'button[aria-label="Queue again: job #1"]', {}, /1 queued again/],
	['dead-letters', ['job #2', 'job #3'], '.bulk button:has-text("Queue again")', {}, /2 queued again/],
	['dead-letters', ['job #4'], '.bulk button:has-text("Delete")', {}, /1 deleted/],
	['dead-letters?job_type=bulk', null, 'button:has-text("Queue all again")', {}, /1,200 queued again/],
	['dead-letters?error_like=%25noise%25', null, 'button:has-text("Delete all")', {}, /30 deleted/],
	['jobs?status=queued&job_type=bulk', null, 'button:has-text("Cancel all")', {}, /1,200 cancelled/],
	['cron', null, 'button[aria-label="Run now: nightly"]', {}, /1 enqueued/],
	['cron', ['nightly', 'hourly'], '.bulk button:has-text("Pause")', { reason: 'holidays' }, /2 paused/],
	['cron', ['nightly', 'hourly'], '.bulk button:has-text("Resume")', {}, /2 resumed/],
	['cron', ['nightly', 'hourly'], '.bulk button:has-text("Run now")', {}, /2 enqueued/],
	['cron-task?name=nightly', null, '#main button:has-text("Pause")', {}, /1 paused/],
	['workers', null, 'button[aria-label="Ask to stop: first worker"]', { reason: 'deployment' }, /1 asked to stop/],
	['workers', ['second worker'], '.bulk button:has-text("Ask to stop")', {}, /1 asked to stop/],
	['endpoints', ['receiver'], '.bulk button:has-text("Disable")', {}, /1 changed/],
	['endpoints', ['receiver'], '.bulk button:has-text("Enable")', {}, /1 changed/],
	['endpoints', ['receiver'], '.bulk button:has-text("Reset")', {}, /\d (reset|as they were)/],
	['overview', null, '#main button:has-text("Pause all workers")', { reason: 'upgrade' }, /Done/],
	['overview', null, '#main button:has-text("Resume all workers")', {}, /Done/]
];
for (const [hash, selected, button, values, said] of ACTIONS)
	await check(`${hash}: ${button.replace(/.*"(.*)".*/, '$1')}${selected ? ' ' + selected.length : ''}`, async () =>
	{
		await go(page, hash);
		await select(selected || []);
		await page.click(button);
		await confirm(page, values);
		return is(await lastMessage(page), said);
	});
await check('endpoints: Test', async () =>
{
	await go(page, 'endpoints');
	await page.click('button[aria-label="Test: receiver"]');
	await confirm(page);
	await page.waitForSelector('dialog[open] h2:has-text("Test of")');
	const said = await page.innerText('dialog');
	await page.keyboard.press('Escape');
	return is(said, /receiver[\s\S]*(total|connect|prepare)/i);
});
await check('a confirm says how many', async () =>
{
	await go(page, 'jobs?status=cancelled&job_type=bulk');
	await page.click('button:has-text("Delete all")');
	await page.waitForSelector('dialog[open]');
	const said = await page.innerText('dialog');
	await page.keyboard.press('Escape');
	return is(said, /Delete 1,200 jobs\?/);
});
await check('what failed is written down, too', async () =>
{
	await go(page, 'actions');
	return is(await text(page), /Limit job types[\s\S]*failed[\s\S]*invalid input syntax/);
});

// ---- looking for something ----

await check('payloads are hidden until asked for', async () =>
{
	const asked = [];

	page.on('request', r => asked.push(r.url()));
	await go(page, 'job?id=2');
	if (/hush-hush/.test(await page.content()) || asked.some(u => /payload/.test(u)))
		return 'it is there';
	await page.click('button:has-text("Show payload")');
	await page.waitForSelector('pre:has-text("hush-hush")');
	await page.click('button:has-text("Hide")');
	await page.waitForSelector('pre:has-text("hush-hush")', { state: 'detached' });
	return /password/.test(await text(page)) ? 'it is still there' : '';
});
await check('jobs are found by type and correlation id, page by page', async () =>
{
	await go(page, 'jobs');
	await page.selectOption('select[name=status]', 'cancelled');
	await page.fill('input[name=job_type]', 'bulk');
	await page.click('button:has-text("Find")');
	await page.waitForFunction(() => location.hash.includes('job_type=bulk'));
	await loaded(page);
	const first = await page.innerText('tbody tr:first-child th');
	await page.click('a:has-text("Next page")');
	await page.waitForFunction(f => document.querySelector('tbody tr:first-child th').innerText !== f, first);
	if (await page.locator('tbody tr').count() !== 50)
		return `there are ${await page.locator('tbody tr').count()} rows`;
	await go(page, 'jobs?correlation_id=order-7');
	return await page.locator('tbody tr').count() === 1 ? '' : await text(page);
});
await check('tables can be sorted', async () =>
{
	await go(page, 'types');
	await page.click('th button:has-text("Type")');
	await page.click('th button:has-text("Type")');
	const names = await page.locator('section[aria-label=Types] tbody th a').allInnerTexts();
	return await page.getAttribute('section[aria-label=Types] th:has(button:has-text("Type"))', 'aria-sort') === 'descending' && names[0] > names[1] ? '' : names.join();
});

// ---- what is text stays text ----

await check('names, errors and payloads are never markup', async () =>
{
	for (const hash of ['overview', 'types', 'type?name=' + encodeURIComponent('<script>pwned=1</script>'), 'jobs', 'dead-letters', 'job?id=10', 'cron',
		'cron-task?name=' + encodeURIComponent('<img src=x onerror=pwned=1>'), 'workers', 'endpoints', 'actions', 'jobs?correlation_id=' + encodeURIComponent('"><svg onload=pwned=1>')])
	{
		await go(page, hash);
		if (hash === 'job?id=10')
			await page.click('button:has-text("Show payload")').then(() => page.waitForSelector('pre:has-text("pwned")'));
		if (await page.evaluate(() => 'pwned' in window || document.querySelector('main script, main img, main [onerror], main [onload], main iframe') !== null))
			return 'markup in ' + hash;
	}
	await go(page, 'types');
	return is(await text(page), /<script>pwned=1<\/script>/);
});

// ---- with the keyboard alone ----

await check('all of it works with the keyboard', async () =>
{
	await page.goto('about:blank');
	await page.goto(operator);
	await loaded(page);
	await page.keyboard.press('Tab');
	if (!/Skip/.test(await page.evaluate(() => document.activeElement.innerText)))
		return 'the first stop is not the skip link';
	await page.keyboard.press('Enter');
	if (await page.evaluate(() => document.activeElement.id) !== 'main')
		return 'the skip link leads to ' + await page.evaluate(() => document.activeElement.outerHTML.slice(0, 100));
	await page.keyboard.press('g');
	await page.keyboard.press('c');
	await page.waitForFunction(() => location.hash === '#/cron');
	await loaded(page);
	// to the button that runs a task, and through its dialog
	for (let i = 0; i < 60 && await page.evaluate(() => document.activeElement.getAttribute('aria-label')) !== 'Run now: hourly'; i++)
		await page.keyboard.press('Tab');
	if (!await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== 'none'))
		return 'the focus cannot be seen';
	await page.keyboard.press('Enter');
	await page.waitForSelector('dialog[open]');
	await page.keyboard.press('Escape');
	await page.waitForSelector('dialog', { state: 'detached' });
	if (await page.evaluate(() => document.activeElement.getAttribute('aria-label')) !== 'Run now: hourly')
		return 'the focus did not return';
	await page.keyboard.press('Enter');
	await page.waitForSelector('dialog[open]');
	await page.keyboard.press('Enter');
	const said = await lastMessage(page);
	if (!/1 enqueued/.test(said))
		return said;
	if (await page.evaluate(() => document.activeElement.getAttribute('aria-label')) !== 'Run now: hourly')
		return 'the focus was lost with the refresh: ' + await page.evaluate(() => document.activeElement.outerHTML.slice(0, 200));
	await page.keyboard.press('g');
	await page.keyboard.press('o');
	await page.waitForFunction(() => location.hash === '#/overview');
	await loaded(page);
	await page.focus('[data-plot=throughput]');
	await page.keyboard.press('ArrowLeft');
	await page.waitForFunction(() => /Succeeded/.test(document.querySelector('.readout').textContent));
	await page.keyboard.press('?');
	await page.waitForSelector('dialog[open]');
	const keys = await violations(page, ['wcag2a', 'wcag2aa']);
	await page.uncheck('#shortcuts');
	await page.keyboard.press('Escape');
	await page.waitForSelector('dialog', { state: 'detached' });
	await page.keyboard.press('g');
	await page.keyboard.press('c');
	return keys || (await page.evaluate(() => location.hash) === '#/overview' ? '' : 'shortcuts cannot be switched off');
});

// ---- when nobody looks, and when nobody answers ----

await check('it asks again while somebody looks, and never while hidden', async () =>
{
	let requests = 0;

	await page.close();
	page = await browser.newPage();
	page.setDefaultTimeout(10000);
	await page.clock.install();
	await page.goto(operator + '#/types');
	await loaded(page);
	page.on('request', r => { requests += r.url().includes('/api/types') ? 1 : 0; });
	await Promise.all([page.waitForRequest(/api\/types/), page.clock.runFor(6000)]);
	await loaded(page);
	const hide = hidden => page.evaluate(h => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => h }); document.dispatchEvent(new Event('visibilitychange')); }, hidden);
	await hide(true);
	requests = 0;
	await page.clock.runFor(120000);
	if (requests > 0)
		return `${requests} requests while hidden`;
	await Promise.all([page.waitForRequest(/api\/types/), hide(false)]);
	await loaded(page);
	await page.click('#pause');
	requests = 0;
	await page.clock.runFor(60000);
	if (requests > 0)
		return `${requests} requests while paused`;
	await Promise.all([page.waitForRequest(/api\/types/), page.click('#pause')]);
	return '';
});
await check('it says when the server does not answer, and when it does again', async () =>
{
	await loaded(page);
	await page.context().setOffline(true);
	await page.clock.runFor(6000);
	await page.waitForSelector('main [role=alert]:has-text("does not answer")');
	const age = await page.innerText('#age');
	const rows = await page.locator('tbody tr').count();
	await page.context().setOffline(false);
	await page.clock.runFor(6000);
	await page.waitForSelector('main [role=alert]', { state: 'detached' });
	return rows === 0 ? 'what was there has gone' : is(age, /no answer/);
});
await page.close();

// ---- an observer ----

page = await open({}, observer, 'overview');
await check('an observer sees the pages, no errors, no payloads, no buttons', async () =>
{
	for (const hash of PAGES.filter(h => h !== 'actions' && h !== 'alerts'))
	{
		await go(page, hash);
		if (await page.$('main .notice.fail'))
			return hash + ': ' + await page.innerText('main .notice.fail');
		if (/hush-hush|mailbox/.test(await page.content()))
			return hash + ': it shows what it should not';
		if (await page.locator('main [data-action], main [data-do^=ask], main button:has-text("Show payload")').count() > 0 || await page.isVisible('#token'))
			return hash + ': there are buttons';
	}
	return '';
});

told(complaints.length === 0, 'nothing was said in the console', complaints.join('\n'));
await browser.close();
