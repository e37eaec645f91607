// @microsoft/fetch-event-source: node fetch-event-source.mjs plain|remedy URL
// It is made for pages. What it asks of one stands here; all else it does in Node as in a browser.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
// What a page is served is the module of its name; Node takes the package for CommonJS.
const { fetchEventSource } = (await import('@microsoft/fetch-event-source')).default;

// As the README shows it first.
const plain = (url, show) => fetchEventSource(url, { onmessage: show });

// remedy
class Over extends Error {}

const follow = (url, show) => fetchEventSource(url, {
  openWhenHidden: true,
  async onopen({ status }) {
    if (status === 204 || status === 400) throw new Over(status);
    if (status !== 200) throw new Error(status);
  },
  onmessage(event) { if (event.data) show(event); },
  onclose() { throw new Error('open it again'); },
  onerror(error) { if (error instanceof Over) throw error; },
});
// end of remedy

const [, , form, url] = process.argv;
const show = ({ id, event, data }) => console.log(JSON.stringify({ id, type: event, data }));
await { plain, remedy: follow }[form](url, show);
