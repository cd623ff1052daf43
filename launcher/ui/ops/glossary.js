/** What the page's figures mean, exactly. */
import { html } from '../shared/dom.js';
import { texts } from '../shared/words.js';
import { say } from './words.js';

const MEANINGS = {
  ttft: {
    en: ['TTFT', 'From a request\'s arrival at the gateway to the first piece of its streamed answer. From a histogram, so about.'],
    zh: ['TTFT', '从请求到达网关到流式回答第一段的时间。取自直方图，为近似值。'],
  },
  itl: {
    en: ['ITL', 'In the plot: the mean gap between the pieces of a stream, one value for each stream. In the table: between tokens, as learnt of late.'],
    zh: ['ITL', '图中：每个流各段之间的平均间隔，每个流一个值。表中：近期测得的 token 间隔。'],
  },
  goodput: {
    en: ['Goodput', 'Streams of the last minute whose first piece came within the objective. Its share is of all streams that had a first piece, and all requests that were refused, evicted or failed. Answers that are not streamed have no TTFT and are left out.'],
    zh: ['有效吞吐（goodput）', '最近一分钟内首段在目标时间内到达的流。占比的分母是所有有首段的流，加上所有被拒绝、逐出或失败的请求。非流式回答没有 TTFT，不计入。'],
  },
  prefill: {
    en: ['Prefill in hand', 'Prompt tokens that were sent to engines and whose first token has not come, against the most that the mode allows.'],
    zh: ['在手预填充', '已发往引擎但首 token 未到的提示 token，与模式允许的上限相比。'],
  },
  kv: {
    en: ['KV tokens and KV cache', 'KV tokens are what the gateway has booked, expected growth included. KV cache is how full the engine itself says it is.'],
    zh: ['KV token 与 KV 缓存', 'KV token 是网关已预订的量，含预期增长；KV 缓存是引擎自己报告的占用。'],
  },
  own: {
    en: ['Runs / waits', 'Requests that the engine itself runs and lets wait, after the gateway sent them.'],
    zh: ['运行 / 等待', '网关发出后，引擎自身正在运行和排队的请求。'],
  },
  refused: {
    en: ['Refused, evicted', 'Refused: before the queue. Evicted: taken out of the queue when the deadline passed. Both get an answer that says why and when to come again.'],
    zh: ['拒绝与逐出', '拒绝：入队之前。逐出：期限已过而移出队列。两者都会得到说明原因和重试时间的回答。'],
  },
  trend: {
    en: ['Trend and Full in', 'How fast a card\'s memory grew over the last 2 minutes, and when it is full if it grows steadily and goes on so.'],
    zh: ['趋势与距满', '最近 2 分钟显存增长的速度，以及持续增长时多久会满。'],
  },
};

const meaning = texts(Object.fromEntries(Object.entries(MEANINGS).flatMap(([key, { en, zh }]) => [
  [`${key}_term`, { en: en[0], zh: zh[0] }], [key, { en: en[1], zh: zh[1] }],
])));

export function Glossary() {
  return html`<details class="glossary">
    <summary>${say('glossary')}</summary>
    <dl>${Object.keys(MEANINGS).map((key) => html`<div key=${key}><dt>${meaning(`${key}_term`)}</dt><dd>${meaning(key)}</dd></div>`)}</dl>
  </details>`;
}
