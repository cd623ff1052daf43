/** One plot: uPlot in a figure, with the values as text beside it. Its colours are those of its legend's marks. */
import { html, useEffect, useLayoutEffect, useRef, useState } from '../shared/dom.js';
import { clock } from './figures.js';
import { say } from './words.js';

const HEIGHT = 116; // CSS pixels
const DASHES = [[], [5, 3], [2, 2], [8, 3, 2, 3]];
const STEPS_S = [60, 120, 300, 600]; // between two times at the axis
const LEAST_SPAN_S = 120; // so that the first looks are not stretched over the whole width

/**
 * @param {{name: string, lines: {name: string, label: string}[], now: number}} props besides: `aside`, a short text;
 * `format`, of a value; `axis`, of a value at the axis; `most`, where the scale ends whatever comes; `note`, a control.
 */
export function Plot({ history, name, lines, aside, format, axis, most, note, now }) {
  const [at, setAt] = useState(null); // the look under the cursor, which all plots share
  const box = useRef(null);
  const legend = useRef(null);
  const shown = at === null ? history.kept - 1 : at;
  const values = lines.map((line) => format(history.line(line.name)[shown]));
  const keys = lines.map((line) => line.name).join(' ');
  usePlot({ box, legend, history, lines, keys, axis, most, setAt });
  const said = lines.map((line, i) => `${line.label} ${values[i]}`).join(', ');
  const described = `${name}: ${said}. ${say('plot_span', { span: spanOf(history) })}`;
  return html`<figure class="plot">
    <figcaption>
      <h3>${name}</h3>
      <p class="aside">${at === null ? aside : say('at_time', { time: clock(history.times[shown], now) })}</p>
    </figcaption>
    ${note}
    <ul class="legend" ref=${legend}>
      ${lines.map((line, i) => html`<li key=${line.name}>
        <span class=${`mark line-${(i % 8) + 1} dash-${i % DASHES.length}`} aria-hidden="true"></span>
        <span class="label">${line.label}</span> <b>${values[i]}</b>
      </li>`)}
    </ul>
    <div class="canvas" ref=${box} role="img" aria-label=${described}></div>
  </figure>`;
}

function usePlot({ box, legend, history, lines, keys, axis, most, setAt }) {
  const plot = useRef(null);
  useLayoutEffect(() => {
    const inks = () => [...legend.current.querySelectorAll('.mark')].map((mark) => getComputedStyle(mark).color);
    const made = new globalThis.uPlot(
      options({ width: box.current.clientWidth, lines, inks, frame: box.current, axis, most, setAt }),
      data(history, lines), box.current,
    );
    const watching = new ResizeObserver(() => made.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    watching.observe(box.current);
    plot.current = made;
    const end = onScheme(() => made.redraw(false));
    return () => { end(); watching.disconnect(); made.destroy(); };
  }, [keys]);
  useEffect(() => {
    const made = plot.current;
    made.batch(() => {
      made.setData(data(history, lines), false);
      made.setScale('x', span(history));
    });
  }, [history.last, keys]);
}

const data = (history, lines) => [history.times, ...lines.map((line) => history.line(line.name))];

/** From 2 minutes to all that is kept. */
function span(history) {
  const max = history.last ?? Date.now() / 1000;
  return { min: max - Math.min(Math.max(LEAST_SPAN_S, max - (history.begun ?? max)), history.kept), max };
}

function spanOf(history) {
  const { min, max } = span(history);
  return `${Math.max(1, Math.round((max - min) / 60))} min`;
}

function options({ width, lines, inks, frame, axis, most, setAt }) {
  const style = () => getComputedStyle(frame);
  const font = `11px ${style().fontFamily}`;
  const ground = { stroke: () => style().color, font, ticks: { show: false } };
  const grid = { stroke: () => style().borderTopColor, width: 1 };
  return {
    width, height: HEIGHT, legend: { show: false }, padding: [6, 6, 0, 0],
    cursor: { sync: { key: 'ops' }, drag: { x: false, y: false }, y: false, points: { show: false } },
    select: { show: false },
    scales: { x: { time: true, auto: false }, y: { range: (plot, min, max) => [0, most ?? roof(max)] } },
    axes: [
      { ...ground, grid: { show: false }, size: 22, space: 70, incrs: STEPS_S, values: (plot, at) => at.map(hours) },
      { ...ground, grid, size: 46, space: 26, values: (plot, values) => values.map(axis) },
    ],
    series: [{}, ...lines.map((line, i) => ({
      stroke: () => inks()[i], width: 1.5, dash: DASHES[i % DASHES.length], points: { show: false },
    }))],
    hooks: { setCursor: [(plot) => setAt(plot.cursor.left >= 0 ? plot.cursor.idx ?? null : null)] },
  };
}

/** A little above the greatest value; a line at 0 is seen to be one. */
function roof(max) {
  return max ? 1.12 * max : 1;
}

function hours(at) {
  return new Date(1000 * at).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
}

/** Calls when the page's colours become others. @returns {() => void} ends that */
function onScheme(changed) {
  const soon = () => requestAnimationFrame(changed); // whoever sets them hears of it in the same round
  const dark = matchMedia('(prefers-color-scheme: dark)');
  dark.addEventListener('change', soon);
  for (const event of ['launcher:theme', 'storage']) addEventListener(event, soon);
  return () => {
    dark.removeEventListener('change', soon);
    for (const event of ['launcher:theme', 'storage']) removeEventListener(event, soon);
  };
}
