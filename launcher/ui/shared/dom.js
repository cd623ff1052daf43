/** Preact, its hooks and htm: one vendored file, named here only. */
export {
  html, render, h, createContext,
  useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useReducer, useContext,
} from '../vendor/preact-htm.js';
