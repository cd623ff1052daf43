/**
 * Shares the page's main thread among all drawings: one turn at a time, of few milliseconds, so that the page answers to
 * its user whatever is drawn. A stream is drawn once a frame; what is over is drawn as fast as turns go.
 */
export const TURN_MS = 8;
const HIDDEN_MS = 200; // no frames come in a tab that is out of sight
const SLOW_MS = 16; // a turn that took longer is followed by a rest of twice as long

const waiting = new Set();
let isDue = false;
let restsUntil = 0;

/**
 * @typedef {{isOver: boolean, turn: (until: number, isInFrame: boolean) => boolean}} Drawn `turn` draws till `until` on the
 *   clock of performance.now() and tells whether there is more
 */

/** Gives a drawing its turn, soon. @param {Drawn} one */
export function wake(one) {
  waiting.add(one);
  if (!isDue) due();
}

/** @param {Drawn} one */
export function forget(one) {
  waiting.delete(one);
}

function due() {
  isDue = true;
  const restMs = restsUntil - performance.now();
  if (restMs > 0) {
    setTimeout(run, restMs, false);
    return;
  }
  const isUrgent = [...waiting].some((one) => one.isOver);
  let frame = 0;
  const timer = setTimeout(() => { cancelAnimationFrame(frame); run(false); }, isUrgent ? 0 : HIDDEN_MS);
  frame = requestAnimationFrame(() => { clearTimeout(timer); run(true); });
}

function run(isInFrame) {
  isDue = false;
  const began = performance.now();
  for (const one of [...waiting]) {
    waiting.delete(one);
    if (one.turn(began + TURN_MS, isInFrame)) waiting.add(one); // behind the others
    if (performance.now() > began + TURN_MS) break;
  }
  const tookMs = performance.now() - began;
  if (tookMs > SLOW_MS) restsUntil = began + 3 * tookMs;
  if (waiting.size && !isDue) due();
}
