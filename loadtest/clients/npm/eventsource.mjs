// The npm package `eventsource`, as its README shows: node eventsource.mjs PACKAGE URL
const [, , name, url] = process.argv;
const module = await import(name);
const EventSource = module.EventSource ?? module.default;

const source = new EventSource(url);
source.onmessage = ({ data, lastEventId }) => console.log(JSON.stringify({ id: lastEventId, data }));
