// Sliders, class menu and epoch player: native inputs, so that keyboard and screen readers work.

import type { Traits } from "./contract";
import type { Axis, Cube } from "./cube";
import { h, say, setting } from "./dom";
import type { Choice, Choices } from "./state";

/** Slider steps between two neighbouring grid points. */
const STEPS = 4;
const PLAY_MS = 160;

let serial = 0;

/** What the dots and lines of the panels stand for. */
class Legend {
  private readonly now = h("span", {}, "this network, trained");
  /** Named once it is known. */
  private readonly reference = h("span", {}, "the first network");
  private readonly others = h("span", {}, "all trained networks");
  private readonly plane = [
    entry("qw-key-trail", "its path over the epochs"),
    entry("qw-key-forbidden", "forbidden: σx σp < ½"),
  ];
  private readonly networks = entry("qw-key-networks", this.others);
  readonly element = h(
    "ul",
    { class: "qw-key", "aria-label": "Legend" },
    entry("qw-key-now", this.now),
    entry("qw-key-hollow", "interpolated, not trained"),
    entry("qw-key-reference", "compare: ", this.reference),
    this.networks,
    ...this.plane,
  );

  private on: ReadonlySet<string> = new Set();
  /** Whether there is one model, and no other. */
  private alone = false;

  /** Say what is compared with what; nothing was trained here of models of one's own. */
  setCube({ models, epsilon, regularization }: Cube): void {
    const [first] = models;
    this.now.textContent = first === undefined ? "this network, trained" : "this model";
    this.others.textContent = first === undefined ? "all trained networks" : "the other models";
    this.reference.textContent =
      first ?? `ε ${setting(epsilon.value(0))}, λ ${setting(regularization.value(0))}`;
    this.alone = models.length === 1;
    this.hide();
  }

  setPanels(on: ReadonlySet<string>): void {
    this.on = on;
    this.hide();
  }

  /** Name nothing that no panel shows. */
  private hide(): void {
    const { on } = this;
    for (const item of this.plane) item.hidden = !on.has("plane");
    this.networks.hidden = this.alone || (!on.has("plane") && !on.has("tradeoff"));
  }
}

function entry(css: string, ...text: (string | Node)[]): HTMLElement {
  const mark = h("i", { class: css, "aria-hidden": true });
  return h("li", {}, mark, h("span", {}, ...text));
}

interface Slider {
  element: HTMLElement;
  input: HTMLInputElement;
  output: HTMLOutputElement;
  track: HTMLElement;
  label: HTMLElement;
}

function slider(css: string, name: string, unit: string): Slider {
  const id = `qw-${++serial}`;
  const input = h("input", {
    type: "range",
    id,
    min: 0,
    max: 1,
    step: 1,
    value: 0,
    disabled: true,
  });
  const output = h("output", { for: id, class: "qw-value" });
  const track = h("div", { class: "qw-track" }, input);
  const label = h("label", { for: id }, name);
  label.title = unit;
  const head = h("div", { class: "qw-control-head" }, label, output);
  const element = h("div", { class: `qw-control ${css}` }, head, track);
  return { element, input, output, track, label };
}

/** Dots under the track where networks were trained. */
function dots(track: HTMLElement, count: number): void {
  track.querySelector(".qw-dots")?.remove();
  if (count < 2 || count > 40) return;
  const row = h("div", { class: "qw-dots", "aria-hidden": true });
  for (let i = 0; i < count; i++) row.append(h("i"));
  track.append(row);
}

export class Controls {
  readonly element = h("form", { class: "qw-controls", "aria-label": "Controls" });
  private readonly epsilon = slider(
    "qw-epsilon",
    "Adversarial radius ε",
    "training radius, input units",
  );
  private readonly regularization = slider("qw-regularization", "Regularization λ", "");
  private readonly epoch = slider("qw-epoch", "Epoch", "0 is the untrained network");
  private readonly attack = slider(
    "qw-attack-epsilon",
    "Attack radius",
    "radius of the attack that measures robust accuracy, input units",
  );
  private readonly label = h("select", { id: `qw-${++serial}`, disabled: true });
  private readonly labelName = h("label", { for: this.label.id }, "Class");
  private readonly play = h(
    "button",
    { type: "button", class: "qw-play", "aria-label": "Play the epochs", disabled: true },
    "▶",
  );
  private timer: ReturnType<typeof setInterval> | undefined;
  private cube: Cube | null = null;
  /** There from the beginning: nothing moves when the first networks come. */
  readonly legend = new Legend();

  constructor(private readonly choices: Choices) {
    this.element.addEventListener("submit", (event) => event.preventDefault());
    this.epoch.element.querySelector("label")?.after(this.play);
    this.element.append(
      this.epsilon.element,
      this.regularization.element,
      h(
        "div",
        { class: "qw-control qw-label" },
        h("div", { class: "qw-control-head" }, this.labelName),
        this.label,
      ),
      this.epoch.element,
      this.attack.element,
    );
    this.bind(this.epsilon, "epsilon", (cube) => cube.epsilon);
    this.bind(this.regularization, "regularization", (cube) => cube.regularization);
    this.bind(this.attack, "attack_epsilon", (cube) => cube.attack);
    this.label.addEventListener("change", () =>
      choices.choose({ label: this.label.selectedIndex }),
    );
    this.epoch.input.addEventListener("input", () => {
      this.stop();
      const wanted = this.epoch.input.valueAsNumber;
      choices.choose({ epoch: Math.min(wanted, (this.cube?.finished ?? 1) - 1) });
      this.showEpoch();
    });
    this.play.addEventListener("click", () => (this.timer ? this.stop() : this.start()));
  }

  /** Say what the strength of the regularizer is the strength of. */
  setHeading({ regularizer }: Traits["heading"]): void {
    this.regularization.label.title = regularizer;
  }

  /** Show the grid of a cube, or of one that has grown. */
  setCube(cube: Cube): void {
    const fresh = this.cube !== cube;
    this.cube = cube;
    if (fresh) {
      // What was played is no more.
      this.stop();
      const axes: [Slider, Axis][] = [
        [this.epsilon, cube.epsilon],
        [this.regularization, cube.regularization],
        [this.attack, cube.attack],
      ];
      for (const [{ input, track }, axis] of axes) {
        input.max = String(axis.last);
        input.step = String(1 / STEPS);
        input.disabled = axis.last === 0;
        dots(track, axis.values.length);
      }
      this.label.replaceChildren(...cube.labels.map((name) => h("option", {}, name)));
      this.label.disabled = false;
      this.labelName.textContent = cube.group.charAt(0).toUpperCase() + cube.group.slice(1);
      this.legend.setCube(cube);
      this.epoch.input.max = String(cube.epochs);
    }
    this.epoch.input.disabled = cube.finished < 2;
    this.play.disabled = cube.finished < 2;
    this.epoch.track.style.setProperty(
      "--qw-ready",
      String((cube.finished - 1) / Math.max(cube.epochs, 1)),
    );
    this.show();
  }

  show(): void {
    const { cube } = this;
    if (!cube) return;
    const { now } = this.choices;
    this.showSlider(this.epsilon, cube.epsilon, now.epsilon, "interpolated");
    this.showSlider(this.regularization, cube.regularization, now.regularization, "interpolated");
    this.showSlider(this.attack, cube.attack, now.attack_epsilon, "between measured radii");
    this.label.selectedIndex = now.label;
    this.showEpoch();
  }

  dispose(): void {
    this.stop();
  }

  private bind(part: Slider, key: keyof Choice, axis: (cube: Cube) => Axis): void {
    part.input.addEventListener("input", () => {
      if (this.cube)
        this.choices.choose({ [key]: axis(this.cube).value(part.input.valueAsNumber) });
    });
  }

  private showSlider(
    { input, output, track }: Slider,
    axis: Axis,
    value: number,
    between: string,
  ): void {
    const position = axis.position(value);
    if (Math.abs(input.valueAsNumber - position) > 0.5 / STEPS) input.value = String(position);
    const text = setting(value);
    say(output, text);
    input.setAttribute("aria-valuetext", Number.isInteger(position) ? text : `${text}, ${between}`);
    track.style.setProperty("--qw-fill", String(axis.last ? position / axis.last : 0));
  }

  private showEpoch(): void {
    const { cube } = this;
    const chosen = this.choices.now.epoch;
    const epoch = cube?.finishedIndex(chosen) ?? chosen;
    const text = String(cube?.trainedEpochs(epoch) ?? epoch);
    this.epoch.input.value = String(epoch);
    say(this.epoch.output, text);
    this.epoch.input.setAttribute("aria-valuetext", epoch === 0 ? "0, untrained" : text);
    this.epoch.track.style.setProperty("--qw-fill", String(epoch / Math.max(cube?.epochs ?? 1, 1)));
  }

  private start(): void {
    const { cube } = this;
    if (!cube) return;
    if (this.choices.now.epoch >= cube.finished - 1) this.choices.choose({ epoch: 0 });
    this.setPlaying(
      setInterval(() => {
        if (document.hidden) return;
        const next = this.choices.now.epoch + 1;
        // As many as there are by now: it plays on while they train.
        const finished = this.cube?.finished ?? 0;
        if (next < finished) this.choices.choose({ epoch: next });
        if (next >= finished - 1) this.stop();
      }, PLAY_MS),
    );
  }

  private stop(): void {
    clearInterval(this.timer);
    this.setPlaying(undefined);
  }

  private setPlaying(timer: ReturnType<typeof setInterval> | undefined): void {
    this.timer = timer;
    this.play.textContent = timer ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", timer ? "Stop playing" : "Play the epochs");
  }
}
