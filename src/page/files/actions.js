// Actions of operators: each asks first, and says how it ended.

import { find, say } from "./render.js";

let refresh = () => {};
let hide;

/** Names the function that asks the server again, once an action has ended. */
export const after_action = (ask) => (refresh = ask);

/** Says something that has happened, for a while. */
export function notify(text) {
  const notice = find("notice");
  say(notice, text);
  clearTimeout(hide);
  hide = setTimeout(() => say(notice, ""), 8000);
}

/** Asks whether to go on. */
function confirm(title, text, verb) {
  const dialog = find("confirm");
  say(find("confirm-title"), title);
  say(find("confirm-text"), text);
  say(find("confirm-yes"), verb);
  // Escape closes the dialog without a value of its own.
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function post(path, button, done) {
  button.disabled = true;
  try {
    const answer = await fetch(path, { method: "POST" });
    if (answer.ok) notify(done);
    else notify(`That did not work: ${(await answer.json()).message ?? answer.statusText}`);
  } catch {
    notify("That did not work: there was no answer.");
  }
  button.disabled = false;
  if (document.activeElement === document.body) button.focus();
  refresh();
}

const path_of = (...names) => names.map((name) => name.split("/").map(encodeURIComponent).join("/")).join("/");

export async function unload(id, button) {
  const text = "Calls under way end first. The next request for it loads it again, and waits for that.";
  if (await confirm(`Unload ${id}?`, text, "Unload")) await post(`models/${path_of(id)}/unload`, button, `${id} is being unloaded.`);
}

export async function load(id, button) {
  const text = "It takes memory from now on; where that is short, models that are not in use are unloaded for it.";
  if (await confirm(`Load ${id}?`, text, "Load")) await post(`models/${path_of(id)}/load`, button, `${id} is loaded.`);
}

export async function restart(canary, button) {
  const text = `It begins again at its first step, ${canary.steps[0]} %, in all instances.`;
  const title = `Restart the canary ${canary.route} of ${canary.endpoint}?`;
  if (await confirm(title, text, "Restart")) {
    await post(`canaries/${encodeURIComponent(canary.endpoint)}/${path_of(canary.route)}/restart`, button, `The canary ${canary.route} begins again.`);
  }
}

export async function abort(canary, button) {
  const text = "Its share goes back to nothing, in all instances, until somebody restarts it.";
  const title = `Abort the canary ${canary.route} of ${canary.endpoint}?`;
  if (await confirm(title, text, "Abort")) {
    await post(`canaries/${encodeURIComponent(canary.endpoint)}/${path_of(canary.route)}/abort`, button, `The canary ${canary.route} is taken back.`);
  }
}
