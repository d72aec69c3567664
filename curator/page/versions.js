// Versions of PEP 440 and specifiers of them, as Python's `packaging` reads them; and how any text
// is read and shown (`squeezed` and `quoted` of curator.resolve._names).
//
// Throws a ValueError where `packaging` raises InvalidVersion or InvalidSpecifier.
const versions = (() => {
  "use strict";

  class ValueError extends Error {}

  // All that Python or JavaScript takes for a space.
  const SPACES =
    /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;
  // Half of a surrogate pair counts only where it stands alone.
  const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ud800-\udfff]/gu;

  const squeezed = (text) =>
    text.replaceAll("\ufeff", "").replace(SPACES, " ").replace(/^ | $/g, "");
  const quoted = (text) => `'${text.replace(UNPRINTABLE, "\ufffd")}'`;

  const PUBLIC =
    "v?(?:([0-9]+)!)?([0-9]+(?:\\.[0-9]+)*)" +
    "(?:[-_.]?(alpha|beta|preview|pre|a|b|c|rc)[-_.]?([0-9]*))?" +
    "(?:-([0-9]+)|[-_.]?(post|rev|r)[-_.]?([0-9]*))?" +
    "(?:[-_.]?(dev)[-_.]?([0-9]*))?";
  const LOCAL = "(?:\\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?";
  const VERSION = new RegExp(`^\\s*${PUBLIC}${LOCAL}\\s*$`, "i");
  const SPECIFIER = /^\s*(===|~=|==|!=|<=|>=|<|>)\s*(.*?)\s*$/s;
  const NAMES = { alpha: "a", beta: "b", c: "rc", pre: "rc", preview: "rc" };

  function parse(text) {
    const found = VERSION.exec(text);
    if (!found) throw new ValueError(`no version: ${text}`);
    const [, epoch, release, pre, pre_number, dash, post, post_number, dev, dev_number, local] =
      found;
    const letter = pre && (NAMES[pre.toLowerCase()] ?? pre.toLowerCase());
    return {
      epoch: Number(epoch ?? 0),
      release: release.split(".").map(Number),
      pre: pre ? [letter, Number(pre_number || 0)] : null,
      post: dash || post ? Number(dash || post_number || 0) : null,
      dev: dev ? Number(dev_number || 0) : null,
      local: local ? local.toLowerCase().split(/[-_.]/).map(local_part) : null,
    };
  }

  function local_part(text) {
    return /^[0-9]+$/.test(text) ? Number(text) : text;
  }

  // Lists as Python compares tuples: part by part, and the shorter one is the less.
  function compare_lists(left, right) {
    for (let place = 0; place < Math.min(left.length, right.length); place += 1) {
      if (left[place] !== right[place]) return left[place] < right[place] ? -1 : 1;
    }
    return left.length - right.length;
  }

  function trimmed(release) {
    let end = release.length;
    while (end > 1 && release[end - 1] === 0) end -= 1;
    return release.slice(0, end);
  }

  const LETTERS = { a: 1, b: 2, rc: 3 };

  // A development release alone is before all others, and no pre-release is after all of them.
  function suffix_key(version) {
    const { pre, post, dev } = version;
    const only_dev = pre === null && post === null && dev !== null;
    return [
      ...(pre ? [LETTERS[pre[0]], pre[1]] : only_dev ? [0, 0] : [4, 0]),
      post ?? -1,
      dev ?? Infinity,
    ];
  }

  function compare(left, right) {
    return (
      left.epoch - right.epoch ||
      compare_lists(trimmed(left.release), trimmed(right.release)) ||
      compare_lists(suffix_key(left), suffix_key(right)) ||
      compare_locals(left.local, right.local)
    );
  }

  // Numbers are after words, and no local version is before any.
  function compare_locals(left, right) {
    if (left === null || right === null) return Number(left !== null) - Number(right !== null);
    for (let place = 0; place < Math.min(left.length, right.length); place += 1) {
      const [one, other] = [left[place], right[place]];
      if (one === other) continue;
      if (typeof one === typeof other) return one < other ? -1 : 1;
      return typeof one === "number" ? 1 : -1;
    }
    return left.length - right.length;
  }

  const is_prerelease = (version) => version.pre !== null || version.dev !== null;

  // Whether a version is a pre-release, as pip takes only where it is named.
  function is_early(text) {
    const plain = squeezed(text).replace(/\.\*$/, "");
    return VERSION.test(plain) && is_prerelease(parse(plain));
  }

  const open = (version) => ({ ...version, local: null });

  // Whether a version is after another and the post-releases and local versions of that.
  function is_after(version, other) {
    if (other.dev !== null) return compare(version, { ...other, dev: other.dev + 1 }) >= 0;
    if (other.post !== null) return compare(version, { ...other, post: other.post + 1, dev: 0 }) >= 0;
    const plain = { ...version, post: null, dev: null, local: null };
    return compare(version, other) > 0 && compare(plain, other) !== 0;
  }

  // Return what says whether a version, as text, is one of a set such as `>=2.6,<2.9`.
  function specifier_set(text) {
    const tests = text
      .split(",")
      .filter((part) => part.trim())
      .map(specifier);
    return (item) => {
      const version = VERSION.test(item) ? parse(item) : null;
      return tests.every((test) => test(version, item));
    };
  }

  function specifier(text) {
    const found = SPECIFIER.exec(text);
    if (!found) throw new ValueError(`no specifier: ${text}`);
    const [, sign, asked] = found;
    if (sign === "===") {
      if (/[\s;)]/.test(asked)) throw new ValueError(`no specifier: ${text}`);
      return (_, item) => item.toLowerCase() === asked.toLowerCase();
    }
    const test = asked.endsWith(".*") ? beginning(sign, asked) : comparing(sign, asked);
    return (version) => version !== null && test(version);
  }

  function beginning(sign, asked) {
    const plain = asked.slice(0, -2);
    if (!["==", "!="].includes(sign) || !/^v?(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*$/i.test(plain)) {
      throw new ValueError(`no specifier: ${sign}${asked}`);
    }
    const { epoch, release } = parse(plain);
    return (version) => begins(version, epoch, release) === (sign === "==");
  }

  function begins(version, epoch, release) {
    return (
      version.epoch === epoch &&
      release.every((number, place) => (version.release[place] ?? 0) === number)
    );
  }

  function comparing(sign, asked) {
    const wanted = parse(asked);
    const is_equality = sign === "==" || sign === "!=";
    if ((wanted.local && !is_equality) || (sign === "~=" && wanted.release.length < 2)) {
      throw new ValueError(`no specifier: ${sign}${asked}`);
    }
    const equal = (version) =>
      compare(wanted.local ? version : open(version), wanted) === 0;
    return {
      "==": equal,
      "!=": (version) => !equal(version),
      "<=": (version) => compare(open(version), wanted) <= 0,
      ">=": (version) => compare(open(version), wanted) >= 0,
      // Not its own pre-releases, unless it is one.
      "<": (version) => compare(version, is_prerelease(wanted) ? wanted : { ...wanted, dev: 0 }) < 0,
      ">": (version) => is_after(version, wanted),
      "~=": (version) =>
        compare(open(version), wanted) >= 0 &&
        begins(version, wanted.epoch, wanted.release.slice(0, -1)),
    }[sign];
  }

  return {
    ValueError,
    compare,
    compare_lists,
    is_early,
    parse,
    quoted,
    specifier_set,
    squeezed,
  };
})();
