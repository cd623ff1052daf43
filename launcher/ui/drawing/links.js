/** Where a link of an answer may lead, and whether its text says so. */
const SCHEMES = new Set(['http:', 'https:', 'mailto:']);
const HOSTLIKE = /(?:[\p{L}\p{N}\p{M}-]+[.。])+[\p{L}\p{N}\p{M}-]*\p{L}[\p{L}\p{N}\p{M}-]+|\d+\.\d+\.\d+\.\d+/gu;

/**
 * The address, where it is a whole one of http, https or mailto; null for all others, also for those within this site.
 * @param {string} text
 * @returns {URL | null}
 */
export function address(text) {
  try {
    const url = new URL(text);
    return SCHEMES.has(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

/** Whom a link leads to: the host, or what follows the @ of a mail address. */
function hostOf(url) {
  return url.protocol === 'mailto:' ? url.pathname.slice(url.pathname.lastIndexOf('@') + 1).toLowerCase() : url.hostname;
}

function ascii(host) {
  try {
    return new URL(`http://${host}`).hostname.replace(/^www\./, '');
  } catch {
    return '';
  }
}

/** Whether `text` is no more than the address itself, perhaps without its scheme. */
function isAddress(text, host) {
  if (/\s/.test(text)) return false;
  const url = address(text) ?? address(`http://${text}`);
  return url !== null && !url.username && !url.password && ascii(hostOf(url)) === host;
}

/** Whether `text` names a host that is not the one the link leads to, or one whose letters may be taken for others. */
export function pretends(text, url) {
  const host = ascii(hostOf(url));
  if (host.includes('xn--')) return true;
  const plain = text.replace(/\p{Cf}/gu, '').normalize('NFKC').trim().toLowerCase();
  if (isAddress(plain, host)) return false;
  return (plain.match(HOSTLIKE) ?? []).some((word) => ascii(word) !== host);
}

/** Makes the links of a fragment safe to follow, and says where those lead that pretend another host. */
export function finishLinks(fragment) {
  for (const link of fragment.querySelectorAll('a')) {
    const url = address(link.getAttribute('href') ?? '');
    if (url === null) {
      link.replaceWith(...link.childNodes);
      continue;
    }
    link.href = url.href;
    link.rel = 'noopener noreferrer nofollow';
    link.target = '_blank';
    link.title = url.href;
    if (pretends(link.textContent, url)) link.append(whereTo(url));
  }
}

function whereTo(url) {
  const host = document.createElement('span');
  host.className = 'host';
  host.textContent = ` (${hostOf(url) || url.href})`;
  return host;
}
