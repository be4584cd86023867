import { render } from 'preact';
import { App } from './app.js';
import './styles/page.css';
import './styles/parts.css';

render(<App />, document.getElementById('page')!);
