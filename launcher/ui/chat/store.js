/**
 * Conversations and their pictures, kept in this browser's IndexedDB. Where that is not to be had (a private window of
 * some browsers), they are kept in memory until the page is left, and `lasting` is false.
 */
import { merge } from './tree.js';

const NAME = 'launcher';
const CONVERSATIONS = 'conversations';
const PICTURES = 'pictures';

/** @returns {Promise<Store>} */
export async function openStore() {
  try {
    return new Store(await opened());
  } catch {
    return new Store(null);
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(CONVERSATIONS, { keyPath: 'id' });
      request.result.createObjectStore(PICTURES);
    };
    request.onsuccess = () => {
      request.result.onversionchange = () => request.result.close(); // a newer page in another tab
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('blocked'));
  });
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export class Store {
  constructor(database) {
    this.database = database;
    this.lasting = database !== null;
    this.memory = { [CONVERSATIONS]: new Map(), [PICTURES]: new Map() };
  }

  /** All conversations, the last used first. */
  async conversations() {
    const all = this.lasting ? await done(this.table(CONVERSATIONS).getAll()) : [...this.memory[CONVERSATIONS].values()];
    return all.sort((one, other) => other.updated - one.updated);
  }

  /** Keeps it, with what another tab has added to it meanwhile. Throws a DOMException where the browser has no room left. */
  async save(conversation) {
    if (!this.lasting) {
      this.memory[CONVERSATIONS].set(conversation.id, conversation);
      return;
    }
    const table = this.table(CONVERSATIONS, 'readwrite'); // one transaction: nobody writes between the two
    const stored = await done(table.get(conversation.id));
    if (stored) merge(conversation, stored);
    await done(table.put(conversation));
  }

  async savePicture(id, blob) {
    if (this.lasting) await done(this.table(PICTURES, 'readwrite').put(blob, id));
    else this.memory[PICTURES].set(id, blob);
  }

  /** @returns {Promise<Blob | undefined>} */
  async picture(id) {
    return this.lasting ? done(this.table(PICTURES).get(id)) : this.memory[PICTURES].get(id);
  }

  /** Forgets a conversation and its pictures. */
  async remove(conversation) {
    const pictures = Object.values(conversation.nodes).flatMap((node) => node.pictures ?? []);
    for (const { id } of pictures) await this.forget(PICTURES, id);
    await this.forget(CONVERSATIONS, conversation.id);
  }

  async forget(table, id) {
    if (this.lasting) await done(this.table(table, 'readwrite').delete(id));
    else this.memory[table].delete(id);
  }

  table(name, mode = 'readonly') {
    return this.database.transaction(name, mode).objectStore(name);
  }
}
