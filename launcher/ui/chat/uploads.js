/**
 * Pictures on their way to the gateway: the upload begins when one is chosen, and nobody waits for it but the request that
 * needs it. The gateway decodes and scales behind it; what that came to is shown as soon as it is known.
 */
import { newId } from './tree.js';
import { headers, refusal, Broken, ask } from '../shared/api.js';

const THUMBNAIL = 96; // CSS pixels, twice that is drawn
const WAIT_S = 30; // the gateway holds ?wait= for so long
const SPARE_S = 20; // an upload that has so little time left is sent again

/** One picture. Events: `change`. State: sending, making, ready or failed; `share` is how much of it is sent. */
export class Upload extends EventTarget {
  /** @param {string} id ours, in the store @param {Blob} blob @param {string} name @param {() => string} mode */
  constructor(id, blob, name, mode) {
    super();
    Object.assign(this, { id, blob, name, mode, state: 'sending', share: 0, told: null, error: null, thumbnail: '' });
    this.clock = null; // when it was chosen and uploaded, until an answer has told of it
    this.expiresAt = 0;
    this.remote = null;
  }

  /** Its id at the gateway, for `upload:ID`; sent again where that is no longer kept. Throws Refusal or Broken. */
  reference() {
    const isOver = this.state === 'ready' && performance.now() > this.expiresAt;
    if (this.remote === null || this.state === 'failed' || isOver) this.send();
    return this.remote;
  }

  /** Sends it, from the beginning. */
  send() {
    this.change({ state: 'sending', share: 0, error: null });
    this.clock = { chosen: performance.now(), uploaded: 0, ms: {} };
    this.remote = this.transfer();
    this.remote.then((id) => this.follow(id), (error) => this.fail(error));
    return this.remote;
  }

  /** Ends it; what was sent goes unused. */
  stop() {
    this.request?.abort();
    if (this.thumbnail) URL.revokeObjectURL(this.thumbnail);
  }

  transfer() {
    // XMLHttpRequest, for fetch tells nothing of how much has been sent.
    return new Promise((resolve, reject) => {
      const request = this.request = new XMLHttpRequest();
      request.open('POST', '/api/upload');
      const type = this.blob.type || 'application/octet-stream';
      for (const [name, value] of Object.entries(headers({ 'content-type': type, 'x-mode': this.mode() }))) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => this.change({ share: event.loaded / event.total });
      request.onerror = request.onabort = () => reject(new Broken(''));
      request.onload = () => {
        if (request.status >= 300) {
          reject(refusal(request.status, request.responseText, (name) => request.getResponseHeader(name)));
          return;
        }
        const answer = JSON.parse(request.responseText);
        this.clock.uploaded = performance.now();
        this.note(answer);
        resolve(answer.id);
      };
      request.send(this.blob);
    });
  }

  /** Asks until it is ready, or cannot be. */
  async follow(id) {
    const asked = this.remote;
    try {
      while (this.remote === asked && this.state === 'making') {
        const response = await ask(`/api/upload/${id}?wait=${WAIT_S}`);
        if (this.remote === asked) this.note(await response.json());
      }
    } catch (error) {
      if (this.remote === asked) this.fail(error);
    }
  }

  note(answer) {
    this.expiresAt = performance.now() + (answer.expires_in_s - SPARE_S) * 1000;
    if (answer.error) {
      this.fail(Object.assign(new Error(answer.error.message), answer.error));
    } else if (answer.tokens !== undefined) {
      this.clock.ms = answer.ms ?? {};
      this.change({ state: 'ready', share: 1, told: answer });
    } else if (answer.state === 'ready') {
      this.change({ state: 'ready', share: 1 });
    } else {
      this.change({ state: 'making', share: 1 });
    }
  }

  fail(error) {
    this.remote = null;
    this.change({ state: 'failed', error });
  }

  change(fields) {
    Object.assign(this, fields);
    this.dispatchEvent(new Event('change'));
  }

  /** Draws the small picture, off the main thread where the browser can. '' where the browser cannot read it. */
  async draw() {
    try {
      const small = await createImageBitmap(this.blob, { resizeHeight: THUMBNAIL * 2, resizeQuality: 'medium' });
      const canvas = new OffscreenCanvas(small.width, small.height);
      canvas.getContext('2d').drawImage(small, 0, 0);
      small.close();
      this.change({ thumbnail: URL.createObjectURL(await canvas.convertToBlob({ type: 'image/webp', quality: 0.8 })) });
    } catch { /* a kind of picture that this browser does not know: the gateway may still */ }
  }
}

/** The uploads of this page by the picture's id, so that a later question about the same picture sends nothing again. */
export class Uploads {
  /** @param {import('./store.js').Store} store @param {() => string} mode */
  constructor(store, mode) {
    Object.assign(this, { store, mode, all: new Map() });
  }

  /** Takes a file that was chosen. @returns {Upload} on its way already */
  take(file) {
    const id = newId();
    const upload = new Upload(id, file, file.name || 'picture', this.mode);
    this.all.set(id, upload);
    upload.send();
    upload.draw();
    return upload;
  }

  /** The upload of a picture of an earlier question; read from the store, not sent yet. Null: it is not kept any more. */
  async of(picture) {
    if (!this.all.has(picture.id)) {
      const blob = await this.store.picture(picture.id);
      if (!blob) return null;
      if (!this.all.has(picture.id)) this.all.set(picture.id, new Upload(picture.id, blob, picture.name, this.mode));
    }
    return this.all.get(picture.id);
  }

  /** The gateway does not know what it was sent (it was restarted): all is sent again when it is needed. */
  forget() {
    for (const upload of this.all.values()) if (upload.state !== 'sending') upload.remote = null;
  }

  /** Ends and forgets the upload of a picture, if there is one. */
  drop(id) {
    this.all.get(id)?.stop();
    this.all.delete(id);
  }
}
