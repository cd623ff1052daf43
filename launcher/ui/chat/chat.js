/**
 * What the chat page knows and does: conversations, the answers that are on their way, what is tried again. The components
 * show it and call it; it tells them by the event `change`. Pieces of an answer go past them, straight to the drawing.
 */
import { Refusal } from '../shared/api.js';
import { setting } from '../shared/settings.js';
import { Run } from './run.js';
import { Figures } from './timing.js';
import * as tree from './tree.js';
import { Uploads } from './uploads.js';

const MOST_TRIES = 20; // by itself, of one answer

export class Chat extends EventTarget {
  /** @param {import('./store.js').Store} store */
  constructor(store) {
    super();
    Object.assign(this, { store, about: null, current: tree.conversation(), list: [], trouble: '' });
    this.uploads = new Uploads(store, () => this.mode);
    this.tray = []; // uploads of the question that is being written
    this.figures = new Figures();
    this.running = new Map(); // id of the conversation → the Run
    this.sinks = new Map(); // id of the answer → who draws it
    this.timers = new Map(); // id of the answer → when it is tried again
    this.said = () => {}; // tells a screen reader
  }

  /** The mode of the next request: the user's choice, or the server's own. */
  get mode() {
    const known = this.about?.modes.map((one) => one.mode) ?? [];
    const chosen = setting('mode');
    return known.includes(chosen) ? chosen : this.about?.mode ?? 'balanced';
  }

  get options() {
    return {
      system: setting('system'), temperature: setting('temperature'), maxTokens: setting('max-tokens'), thinking: setting('thinking'),
    };
  }

  changed() {
    this.dispatchEvent(new Event('change'));
  }

  /** Has the user asked for a key; `why` is the gateway's sentence. */
  lock(why) {
    this.dispatchEvent(new CustomEvent('locked', { detail: why }));
  }

  /** Reads what this browser keeps. */
  async open() {
    this.list = (await this.store.conversations()).map(tree.settle);
    if (this.list.length) this.current = this.list[0];
    this.changed();
  }

  // Conversations.

  start() {
    if (tree.path(this.current).length) this.current = tree.conversation();
    this.changed();
  }

  choose(conversation) {
    this.current = conversation;
    this.changed();
  }

  async remove(conversation) {
    this.running.get(conversation.id)?.stop();
    this.list = this.list.filter((one) => one !== conversation);
    for (const { id } of Object.values(conversation.nodes).flatMap((node) => node.pictures ?? [])) this.uploads.drop(id);
    if (this.current === conversation) this.current = this.list[0] ?? tree.conversation();
    this.changed();
    await this.store.remove(conversation);
  }

  async save(conversation) {
    if (!this.list.includes(conversation)) {
      if (conversation !== this.current) return; // it was removed meanwhile
      this.list = [conversation, ...this.list];
    }
    try {
      await this.store.save(conversation);
    } catch (error) {
      this.trouble = error.message;
      this.changed();
    }
  }

  // Questions.

  /** Takes pictures that were chosen, dropped or pasted: they are on their way at once. */
  take(files) {
    for (const file of files) {
      const upload = this.uploads.take(file);
      upload.addEventListener('change', () => {
        if (upload.error?.status === 401) this.lock(upload.error.message);
        this.changed();
      });
      this.tray.push(upload);
    }
    this.changed();
  }

  untake(upload) {
    this.tray = this.tray.filter((one) => one !== upload);
    this.uploads.drop(upload.id);
    this.changed();
  }

  /** Whether an answer is on its way in the conversation that is shown. */
  get isBusy() {
    return this.running.has(this.current.id);
  }

  /** Asks, with the pictures of the tray. Never waits for them. */
  send(text) {
    const last = tree.path(this.current).at(-1);
    const pictures = this.tray.map((upload) => this.picture(upload));
    this.tray = [];
    this.ask(last?.id ?? tree.ROOT, text, pictures);
  }

  /** What a question keeps of a picture; what it came to is added once the gateway has said it. */
  picture(upload) {
    const picture = { id: upload.id, name: upload.name, told: upload.told };
    this.store.savePicture(upload.id, upload.blob).catch((error) => { this.trouble = error.message; });
    upload.addEventListener('change', () => { picture.told = upload.told; });
    return picture;
  }

  /** Another wording of a question: a branch of its own, with the same pictures. */
  edit(node, text) {
    this.ask(node.parent, text, node.pictures ?? []);
  }

  ask(parent, text, pictures) {
    const question = tree.add(this.current, parent, 'user', { text, pictures });
    this.answer(question);
  }

  /** Another answer to the same question. */
  again(node) {
    this.answer(this.current.nodes[node.parent]);
  }

  answer(question) {
    const node = tree.add(this.current, question.id, 'assistant', { reasoning: '', state: 'waiting', mode: this.mode });
    this.run(this.current, node, false);
  }

  turn(node, step) {
    tree.turn(this.current, node, step);
    this.save(this.current);
    this.changed();
  }

  // Answers.

  /** Asks for what was refused once more. */
  retry(node, tries = 0, conversation = this.current) {
    if (this.running.has(conversation.id)) return;
    Object.assign(node, { text: '', reasoning: '', tries });
    this.run(conversation, node, false);
  }

  /** Goes on with an answer that broke off, or was stopped. */
  goOn(node) {
    if (node.text) this.run(this.current, node, true);
    else this.retry(node);
  }

  stop() {
    this.running.get(this.current.id)?.stop();
  }

  run(conversation, node, goesOn) {
    this.cancel(node);
    const run = new Run(this, conversation, node, goesOn);
    this.running.set(conversation.id, run);
    node.epoch = (node.epoch ?? 0) + 1; // it is drawn anew
    Object.assign(node, { state: 'waiting', error: null, mode: this.mode });
    this.save(conversation);
    this.changed();
    run.whole().finally(() => {
      this.running.delete(conversation.id);
      this.save(conversation);
      this.changed();
    });
  }

  /** Tries an answer again at the time that the server has named. */
  schedule(node, conversation = this.current) {
    this.cancel(node);
    if (!node.error?.retryAt || (node.tries ?? 0) >= MOST_TRIES) return;
    this.timers.set(node.id, setTimeout(() => {
      this.timers.delete(node.id);
      this.retry(node, (node.tries ?? 0) + 1, conversation);
    }, Math.max(0, node.error.retryAt - Date.now())));
    this.changed();
  }

  cancel(node) {
    clearTimeout(this.timers.get(node.id));
    this.timers.delete(node.id);
  }

  /** Whether an answer will be tried again by itself. */
  isScheduled(node) {
    return this.timers.has(node.id);
  }

  /** Gives an answer's pieces to `sink`, until the returned function is called. Sinks: {piece({text, reasoning}), end()}. */
  listen(node, sink) {
    this.sinks.set(node.id, sink);
    return () => { if (this.sinks.get(node.id) === sink) this.sinks.delete(node.id); };
  }

  /** The id that a picture has at the gateway; it is sent again where that is needed. */
  async reference(picture, used) {
    const upload = await this.uploads.of(picture);
    if (upload === null) throw new Refusal(0, { reason: 'picture_lost', message: '' });
    if (upload.remote === null) upload.addEventListener('change', () => { picture.told = upload.told ?? picture.told; });
    used.push(upload);
    return upload.reference();
  }
}
