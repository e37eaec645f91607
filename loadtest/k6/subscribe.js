// How soon and how completely do N streams get what is published? The streams are opened evenly over RAMP, then stay for
// HOLD; publishers count upward meanwhile, and end their topics.
//
// Options, by environment: see ../README.md.

import { subscribersAndPublishers } from './lib/scenario.js';

const plan = subscribersAndPublishers({ streams: 100, topics: 10, rate: 5, ramp: '10s', hold: '30s' });

export const options = plan.options;
export const { setup, publishAll } = plan;

export function subscribe(data) {
  plan.subscribe(data);
}
