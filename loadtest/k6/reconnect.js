// Is the seam tight? Each subscriber reads a few events, leaves, comes back with its last id, on whichever replica the
// proxy chooses, and must have every event once in the end.
//
// Options, by environment: see ../README.md.

import { subscribersAndPublishers } from './lib/scenario.js';
import { seconds, wholeNumber } from './lib/settings.js';

const plan = subscribersAndPublishers({ streams: 50, topics: 5, rate: 20, ramp: '2s', hold: '30s' });
const LEAVE_AFTER = wholeNumber('LEAVE_AFTER', 20, 1);
const AWAY = seconds('AWAY', '1s');

export const options = plan.options;
// A run in which hardly anybody has come back proves nothing.
options.thresholds.stream_resumes = [`count>=${2 * plan.streams}`];

export const { setup, publishAll } = plan;

export function subscribe(data) {
  plan.subscribe(data, {
    chooseLimit: () => 1 + Math.floor(Math.random() * LEAVE_AFTER),
    chooseAway: () => AWAY * Math.random(),
  });
}
