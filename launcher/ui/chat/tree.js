/**
 * A conversation as a tree, so that nothing is lost: who edits a question or asks again gets another branch, and the
 * earlier one stays beside it. Pure: these functions change the conversation that they are given and nothing else.
 *
 * conversation: {id, title, created, updated, nodes: {id: node}, chosen: {parent id: child id}}; '' is the root.
 * node: {id, parent, role: 'user' | 'assistant', text, at, ...}; of a question: pictures: [{id, name}]; of an answer:
 * reasoning, state ('waiting' | 'streaming' | 'done' | 'stopped' | 'broken' | 'refused'), error, mode, timing, usage.
 */
export const ROOT = '';

/** An empty conversation. Times are milliseconds since the epoch. */
export function conversation() {
  const now = Date.now();
  return { id: newId(), title: '', created: now, updated: now, nodes: {}, chosen: {} };
}

/** An id that no other tab makes: two may work on one conversation. */
export function newId() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2, 10).padEnd(8, '0');
}

/** Adds a node under `parent` and chooses it. @returns the node */
export function add(conversation, parent, role, fields) {
  const id = newId();
  const node = { id, parent, role, text: '', at: Date.now(), ...fields };
  conversation.nodes[id] = node;
  conversation.chosen[parent] = id;
  conversation.updated = node.at;
  return node;
}

/** The messages from the first to the last, along what is chosen. */
export function path(conversation) {
  const found = [];
  for (let id = conversation.chosen[ROOT]; id; id = conversation.chosen[id]) found.push(conversation.nodes[id]);
  return found;
}

/** The messages from the first to `node`, whatever is chosen. */
export function pathTo(conversation, node) {
  const found = [];
  for (let at = node; at; at = conversation.nodes[at.parent]) found.unshift(at);
  return found;
}

/** A node and those that stand in the same place, the oldest first. */
export function variants(conversation, node) {
  return Object.values(conversation.nodes).filter((one) => one.parent === node.parent).sort((one, other) => one.at - other.at);
}

/** Chooses the variant that is `step` places further. */
export function turn(conversation, node, step) {
  const all = variants(conversation, node);
  const at = all.indexOf(node) + step;
  if (all[at]) conversation.chosen[node.parent] = all[at].id;
}

/** What is in the list of conversations: the title, or the beginning of the first question. */
export function titleOf(conversation) {
  const first = conversation.title || (path(conversation)[0]?.text ?? '').trim().split('\n')[0];
  return first.length > 60 ? `${first.slice(0, 59)}…` : first;
}

/** An answer that was on its way when the page was left is broken off. */
export function settle(conversation) {
  for (const node of Object.values(conversation.nodes)) {
    if (node.state === 'waiting' || node.state === 'streaming') node.state = node.text || node.reasoning ? 'broken' : 'stopped';
  }
  return conversation;
}

/** Takes over what another tab has added since. */
export function merge(conversation, stored) {
  for (const [id, node] of Object.entries(stored.nodes)) {
    if (!(id in conversation.nodes)) {
      conversation.nodes[id] = node;
      conversation.chosen[node.parent] ??= id;
    }
  }
}
