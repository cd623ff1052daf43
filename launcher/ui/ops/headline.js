/** Whether all is well, in a sentence or three. Pure. */
import { engines, ms, serves, span } from './figures.js';
import { say } from './words.js';

const LEVELS = ['good', 'warn', 'bad'];
const ENDED = ['stopped', 'failed', 'dead'];
const REFUSED_SHARE = 0.05; // of the last minute's requests; some are refused wherever the load is high
const MOST_NAMED = 3; // engines that are named one by one
const COMING = ['starting', 'warming', 'asking'];

/** How an engine stands: a word that is said, and how grave it is. @returns {{word: string, level: string}} */
export function standing(engine) {
  const { replica, phase } = engine;
  if (replica?.leaving) return { word: say('leaving'), level: 'warn' };
  if (replica?.draining && phase === 'ready') {
    return { word: say(replica.in_flight > 0 ? 'draining' : 'drained'), level: 'warn' };
  }
  if (phase === 'ready' && replica !== null && !replica.ready) return { word: say('not_used'), level: 'bad' };
  const level = phase === 'ready' ? 'good' : ['failed', 'down', 'killing'].includes(phase) ? 'bad' : 'warn';
  return { word: say(`phase_${phase}`), level };
}

/**
 * What stands above all. `state` changes only with the state and is read out; `load` changes each second.
 * @returns {{level: string, state: string, load: string}}
 */
export function headline(look) {
  if (ENDED.includes(look.state)) return { level: 'bad', state: say(`ended_${look.state}`), load: '' };
  if (look.live === null) return { level: 'bad', state: say('gateway_silent'), load: '' };
  const serving = servingSentences(look);
  const trouble = minuteSentences(look.live.last_minute);
  const stopping = look.live.draining ? [say('stopping', { reason: look.live.reason })] : [];
  return {
    level: worst([serving.level, trouble.level, stopping.length || look.warnings.length ? 'warn' : 'good']),
    state: [...stopping, ...serving.sentences].join(' '),
    load: [queueSentence(look.live.queue), ...trouble.sentences].join(' '),
  };
}

/** The gravest of some levels. */
export function worst(levels) {
  return LEVELS[Math.max(...levels.map((one) => LEVELS.indexOf(one)))];
}

function servingSentences(look) {
  const all = engines(look);
  const ready = all.filter(serves);
  if (all.length === 0) return { level: 'warn', sentences: [say('no_engines')] };
  if (ready.length === all.length) {
    return { level: 'good', sentences: [say(all.length === 1 ? 'serves_one' : 'serves_all', { count: all.length })] };
  }
  const first = ready.length === 0 ? say(all.length === 1 ? 'serves_not' : 'serves_none', { count: all.length })
    : say(ready.length === 1 ? 'serves_single' : 'serves_some', { ready: ready.length, count: all.length });
  const others = all.filter((one) => !serves(one));
  const named = others.slice(0, MOST_NAMED)
    .map((one) => say('engine_is', { index: one.index, word: standing(one).word }));
  const isWorst = ready.length === 0 && !all.every((one) => COMING.includes(one.phase));
  return { level: isWorst ? 'bad' : 'warn', sentences: [first, ...named] };
}

function queueSentence(queue) {
  if (queue.count === 0) return say('waits_none');
  const oldest = queue.oldest_s < 60 ? ms(1000 * queue.oldest_s) : span(queue.oldest_s);
  return say(queue.count === 1 ? 'waits_one' : 'waits_many', { count: queue.count, oldest });
}

/** What was not served in the last minute, where that is more than a little. */
function minuteSentences(minute) {
  const { failed } = minute;
  const refused = minute.refused + minute.evicted;
  const all = refused + minute.served + minute.cancelled + failed;
  const sentences = [];
  if (refused > 0) sentences.push(say('refused_of', { count: refused, all }));
  if (failed > 0) sentences.push(say(failed === 1 ? 'failed_one' : 'failed_many', { count: failed }));
  const isGrave = failed > 0 || refused > REFUSED_SHARE * all;
  return { level: isGrave ? 'warn' : 'good', sentences };
}
