// What the selected device tells beside its track: alarms, the person's other devices, properties, faults.

import type { Device } from '../contract';
import { byLevel, property } from '../facts';
import { named } from '../format';
import { texts } from '../i18n';
import { companions, isShown } from '../people';
import type { Context } from './context';
import { arrange, h, label, setAttribute, setText } from './dom';
import { kindIcon } from './icons';

/** The gateway keeps no more than these. */
const ALARMS_MAX = 32;
const PROPERTIES_MAX = 64;

export class Details {
  readonly root: HTMLElement;

  private readonly person = h('p', { class: 'person', 'data-testid': 'person' });
  private readonly alarms = h('ul', { class: 'alarms', 'data-testid': 'alarms' });
  private readonly faults = h('p', { class: 'faults', 'data-testid': 'faults' });
  private readonly told: HTMLElement;
  private readonly properties = h('dl', { class: 'properties', 'data-testid': 'properties' });
  private drawn = '';

  constructor(private readonly context: Context) {
    this.told = h('details', { class: 'told' }, label('summary', {}, (t) => t.panel.properties), this.properties);
    this.root = h('div', { class: 'details' }, this.alarms, this.person, this.faults, this.told);
  }

  render(device: Device): void {
    const others = companions(device, this.context.store.devices.values());
    const { alarms = [], properties = {}, faults } = device;
    const told = [device.id, device.person, device.primary, others.map((d) => [d.id, d.state, d.primary]), alarms, properties, faults];
    const key = JSON.stringify([told, texts().language]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.drawAlarms(device);
    this.drawPerson(device, others);
    this.drawProperties(properties);
    this.drawFaults(faults);
  }

  private drawAlarms(device: Device): void {
    const t = texts();
    const all = byLevel(device.alarms ?? []).slice(0, ALARMS_MAX);
    arrange(
      this.alarms,
      all.map(({ code, level, text }) =>
        h(
          'li',
          { 'data-level': level },
          h('span', { class: 'alarm-level' }, named(t.panel.alarmLevel, level)),
          h('span', { class: 'alarm-code' }, code),
          h('span', { class: 'alarm-text' }, text ?? ''),
        ),
      ),
    );
    this.alarms.hidden = all.length === 0;
  }

  private drawPerson(device: Device, others: Device[]): void {
    const t = texts();
    this.person.hidden = device.person == null;
    if (device.person == null) return;
    const shown = [device, ...others].find(isShown);
    const words = shown === undefined ? '' : shown.id === device.id ? t.panel.personShown : t.panel.personOther(shown.id);
    this.person.replaceChildren(
      h('span', { class: 'person-name' }, `${t.panel.person} ${device.person}`),
      ...(others.length > 0 ? [h('span', { class: 'person-shown' }, words)] : []),
      ...others.map((other) => {
        const press = h('button', { type: 'button', class: 'quiet small', 'data-state': other.state, title: named(t.state, other.state) }, kindIcon(other.kind), other.id);
        press.addEventListener('click', () => this.context.showDevice(other.id));
        return press;
      }),
    );
  }

  private drawProperties(properties: NonNullable<Device['properties']>): void {
    const t = texts();
    const all = Object.entries(properties).slice(0, PROPERTIES_MAX);
    this.told.hidden = all.length === 0;
    arrange(
      this.properties,
      all.map(([name, value]) => {
        const told = property(name, value, t);
        return h('div', {}, h('dt', { title: name }, told.name), h('dd', { title: told.value }, told.value));
      }),
    );
  }

  private drawFaults(faults: Record<string, number>): void {
    const t = texts();
    const all = Object.entries(faults).filter(([, n]) => n > 0);
    this.faults.hidden = all.length === 0;
    setText(this.faults, `${t.panel.faults}: ${all.map(([f, n]) => `${named(t.fault, f)} ×${n}`).join(', ')}`);
    setAttribute(this.faults, 'title', all.map(([f]) => f).join(', '));
  }
}
