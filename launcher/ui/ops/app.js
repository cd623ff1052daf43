/** The operator's page: one stream of looks, drawn once a second at most. */
import { html, useEffect, useReducer, useRef, useState } from '../shared/dom.js';
import { choose, setting } from '../shared/settings.js';
import { Switches, useLanguage } from '../shared/switches.js';
import { Banner } from './banner.js';
import { Door, Leave } from './door.js';
import { Engines } from './engines.js';
import { OBJECTIVES_S, count, row, span } from './figures.js';
import { Glossary } from './glossary.js';
import { headline } from './headline.js';
import { History } from './history.js';
import { Cards, Ends } from './machine.js';
import { Mode } from './mode.js';
import { Plan } from './plan.js';
import { Plots } from './plots.js';
import { Outcomes, Queue } from './queue.js';
import { Stream, paced } from './stream.js';
import { say } from './words.js';

export function App() {
  const { look, lookedAt, history, going, opened, restart } = useStream();
  useLanguage();
  const head = look && headline(look);
  useEffect(() => {
    document.title = head ? say('title_of', { word: say(`level_${head.level}`), name: look.name }) : say('title');
  });
  const isStale = going.kind === 'broken' || going.kind === 'paused';
  return html`
    <a class="skip button" href="#figures">${say('to_figures')}</a>
    <${Header} going=${going} look=${look} onKey=${restart} />
    <main id="figures" tabindex="-1" class=${isStale ? 'stale' : ''}>
      <p role="status" class="out-of-sight">${announced(going, head)}</p>
      ${isStale && html`<${Banner} going=${going} lookedAt=${lookedAt} onTry=${restart} />`}
      ${going.kind === 'refused' ? html`<${Door} why=${going.why} onKey=${restart} />`
    : look ? html`<${Deployment} look=${look} head=${head} history=${history} opened=${opened} />`
      : html`<p class="first">${say('waits_for_first')}</p>`}
    </main>`;
}

/** What a screen reader is told without asking: a change of state, never a figure. */
function announced(going, head) {
  if (going.kind === 'broken' || going.kind === 'paused') return say(going.kind);
  return going.kind === 'live' && head ? head.state : '';
}

/** @returns what was looked at last, when, all before it, and how the stream goes; `opened` counts its beginnings. */
function useStream() {
  const [, draw] = useReducer((count) => count + 1, 0);
  const [going, setGoing] = useState({ kind: 'opening' });
  const held = useRef(null);
  if (held.current === null) held.current = { look: null, lookedAt: null, history: new History(), opened: 0, kind: '' };
  useEffect(() => {
    const own = held.current;
    const soon = paced(() => { if (!document.hidden) draw(); });
    own.stream = new Stream({
      onLook: (look) => {
        const [before, after] = [own.look?.live?.version, look.live?.version];
        if (before && after && before !== after) location.reload(); // its pages are others too
        own.look = look;
        own.lookedAt = performance.now();
        own.history.note(look.at, row(look));
        soon();
      },
      onGoing: (next) => {
        if (next.kind === 'live' && own.kind === 'live') return;
        if (next.kind === 'live') own.opened += 1;
        own.kind = next.kind;
        if (next.kind === 'refused') own.look = null; // not for whoever has no key
        setGoing(next);
      },
    });
    own.stream.start();
    document.addEventListener('visibilitychange', soon);
    return () => { document.removeEventListener('visibilitychange', soon); own.stream.close(); };
  }, []);
  const { look, lookedAt, history, opened } = held.current;
  return { look, lookedAt, history, opened, going, restart: () => held.current.stream.start() };
}

function Header({ going, look, onKey }) {
  return html`<header>
    <h1>${say('title')}${look && html` <span class="name">${look.name}</span>`}</h1>
    <p class=${`going ${going.kind}`}>${say(`going_${going.kind}`)}</p>
    <nav aria-label=${say('title')}><a href="/">${say('to_chat')}</a></nav>
    <div class="switches"><${Switches} /><${Leave} onKey=${onKey} /></div>
  </header>`;
}

function Deployment({ look, head, history, opened }) {
  const [objective, setObjective] = useState(() => Number(setting('objective', '1')));
  const { live } = look;
  const own = OBJECTIVES_S.includes(objective) ? objective : 1;
  return html`
    <section class=${`headline ${head.level}`} aria-label=${say(`level_${head.level}`)}>
      <p class="sentence">
        <span class="sign" aria-hidden="true"></span>${head.state} <span class="load">${head.load}</span>
      </p>
      ${live && html`<p class="about">
        ${[live.model, say('version', { version: live.version }), say('up_for', { span: span(live.uptime_s) }),
    say('connections', { count: count(live.connections) })].map((one) => html`<span key=${one}>${one}</span>`)}
      </p>`}
      <${Mode} mode=${live?.mode} />
      ${look.warnings.map((one) => html`<p key=${one} class="notice warn">${one}</p>`)}
    </section>
    <${Engines} look=${look} />
    <${Plots} look=${look} history=${history} objective=${own}
      onObjective=${(seconds) => { choose('objective', String(seconds)); setObjective(seconds); }} />
    ${look.gpus.length > 0 && html`<${Cards} gpus=${look.gpus} />`}
    <div class="columns">
      <div>
        <${Queue} queue=${live?.queue} />
        <${Ends} ends=${look.ends} now=${look.at} />
      </div>
      <${Outcomes} live=${live} />
    </div>
    <${Plan} asked=${opened} />
    <${Glossary} />`;
}
