import { Tidegate } from 'tidegate';

for await (const { topic, event, data } of new Tidegate({
  url: 'http://127.0.0.1:25442/events', topics: ['orders'], since: 'earliest',
})) console.log(topic, event, data);
