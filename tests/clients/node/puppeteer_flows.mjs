import puppeteer from 'puppeteer-core';
import {task} from './flow.mjs';

// What Puppeteer's users do, by name: each flow gets a browser and its page in a context of its own, and returns what
// it saw. A command that is refused is part of what was seen.
const flows = {
  async forms(browser, page, {pages}) {
    await page.goto(`${pages}/form`);
    await page.type('#name', 'somebody else');
    await page.keyboard.down('Control');
    await page.keyboard.press('KeyA');
    await page.keyboard.up('Control');
    for (const key of ['Delete', 'F12']) await page.keyboard.press(key);
    await page.locator('#name').fill('Ada');
    await page.locator('#greet').click();
    return page.$eval('#result', (element) => element.textContent);
  },

  async dialogs(browser, page, {pages}) {
    page.on('dialog', (dialog) => dialog.accept('yes'));
    await page.goto(`${pages}/blank`);
    const answers = await page.evaluate(() => [confirm('sure?'), prompt('what?')]);
    const [popup] = await Promise.all([
      new Promise((resolve) => page.once('popup', resolve)),
      page.evaluate(() => void window.open('about:blank')),
    ]);
    await popup.close();
    return answers;
  },

  async emulation(browser, page, {pages}) {
    const context = page.browserContext();
    await context.overridePermissions(pages, ['geolocation']);
    await page.setGeolocation({latitude: 48.2, longitude: 16.4});
    await page.setUserAgent({userAgent: 'Agent'});
    await page.setViewport({width: 300, height: 200});
    await page.setExtraHTTPHeaders({'X-Test': '1'});
    await page.authenticate({username: 'ada', password: 'x'});
    await page.emulateTimezone('Pacific/Chatham');
    await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: 'dark'}]);
    await page.emulateCPUThrottling(2);
    await page.setBypassCSP(true);
    await page.setCacheEnabled(false);
    await page.goto(`${pages}/blank`);
    const latitude = await page.evaluate(
      () => new Promise((done) => navigator.geolocation.getCurrentPosition((place) => done(place.coords.latitude))),
    );
    const seen = await page.evaluate(() => [navigator.userAgent, innerWidth,
      matchMedia('(prefers-color-scheme: dark)').matches,
      Intl.DateTimeFormat().resolvedOptions().timeZone]);
    await context.clearPermissionOverrides();
    await context.setCookie({name: 'a', value: 'b', domain: '127.0.0.1'});
    const cookies = (await context.cookies()).map(({name, value}) => [name, value]);
    return {latitude, seen, cookies};
  },

  async interception(browser, page, {pages}) {
    await page.setRequestInterception(true);
    page.on('request', (request) => {
      const {pathname} = new URL(request.url());
      if (pathname === '/mocked') return request.respond({contentType: 'text/html', body: '<title>mocked</title>'});
      if (pathname === '/moved') return request.continue({url: `${pages}/form`});
      if (pathname === '/gone') return request.abort();
      return request.continue();
    });
    const titles = [];
    for (const path of ['/mocked', '/moved']) {
      await page.goto(pages + path);
      titles.push(await page.title());
    }
    return {titles, gone: await failure(page.goto(`${pages}/gone`))};
  },

  async rendering(browser, page, {pages}) {
    await page.tracing.start({screenshots: true});
    await page.coverage.startJSCoverage();
    await page.goto(`${pages}/form`);
    const covered = (await page.coverage.stopJSCoverage()).length;
    const trace = (await page.tracing.stop()).length;
    const pdf = Buffer.from(await page.pdf()).toString('latin1', 0, 4);
    const screenshot = Buffer.from(await page.screenshot({fullPage: true})).toString('latin1', 1, 4);
    const {Documents} = await page.metrics();
    const {role} = await page.accessibility.snapshot();
    return {covered, trace: trace > 1000, pdf, screenshot, documents: Documents > 0, role};
  },

  // By path it is refused, for the path is of another machine; the content goes through the page.
  async uploads(browser, page, {pages, file}) {
    await page.goto(`${pages}/upload`);
    const input = await page.$('#file');
    const byPath = await failure(input.uploadFile(file));
    const chosen = await Promise.all([page.waitForFileChooser(), page.click('#file')]);
    const byChooser = await failure(chosen[0].accept([file]));
    await page.evaluate(({content, name}) => {
      const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name));
      const input = document.querySelector('#file');
      input.files = transfer.files;
      input.dispatchEvent(new Event('change', {bubbles: true}));
    }, {content: Buffer.from('mine').toString('base64'), name: 'mine.txt'});
    const content = await page.$eval('#file', (input) => input.files[0].text());
    return {byPath, byChooser, content};
  },

  async downloads(browser, page, {pages, file}) {
    await page.goto(`${pages}/blank`);
    const session = await browser.target().createCDPSession();
    const ended = new Promise((resolve) => session.on('Browser.downloadProgress', (event) => {
      if (event.state !== 'inProgress') resolve(event);
    }));
    await session.send('Browser.setDownloadBehavior', {
      behavior: 'allow', downloadPath: file, eventsEnabled: true, browserContextId: page.browserContext().id,
    });
    await page.evaluate((url) => void (location.href = url), `${pages}/download`);
    const {state, filePath} = await ended;
    // What a client can have of it today: the page fetches it once more.
    const content = await page.evaluate(async (url) => (await fetch(url)).text(), `${pages}/download`);
    await page.goto(`${pages}/upload`);
    const input = await page.$('#file');
    await input.uploadFile(filePath);
    const uploaded = await page.$eval('#file', (input) => input.files[0].text());
    return {state, filePath, content, uploaded};
  },

  async refusals(browser, page) {
    return {
      file: await failure(page.goto('file:///etc/passwd')),
      proxy: await failure(browser.createBrowserContext({proxyServer: 'http://127.0.0.1:1'})),
      extension: await failure(browser.installExtension('/tmp/extension')),
    };
  },
};

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error.message;
  }
  return null;
}

const {flow, endpoint, ...rest} = await task();
const browser = await puppeteer.connect({browserWSEndpoint: endpoint, defaultViewport: null});
const context = await browser.createBrowserContext();
try {
  const seen = await flows[flow](browser, await context.newPage(), rest);
  process.stdout.write(JSON.stringify(seen) + '\n');
} finally {
  await context.close();
  await browser.disconnect();
}
